//! NVML, loaded at run time. All of the agent's knowledge of its C interface, and all `unsafe` that it needs, is here;
//! what the numbers mean is left to `nvml.rs`. Signatures are those of nvml.h; a symbol that a driver may lack is
//! optional, and then what it would have told is `NvmlFailure::NoSymbol`.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::fmt;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

type Code = c_int;

const SUCCESS: Code = 0;
const INSUFFICIENT_SIZE: Code = 7;

/// More steps than any list has had so far; a longer one is asked for again with the size it says.
const CLOCKS_FIRST: usize = 512;
const CLOCKS_MAX: usize = 16_384;

/// Longest of NVML_DEVICE_NAME_V2_BUFFER_SIZE (96) and NVML_DEVICE_UUID_V2_BUFFER_SIZE (96).
const TEXT_BYTES: usize = 96;

const CLOCK_GRAPHICS: c_uint = 0;

/// NVML's handle of one device. Valid for as long as the library is loaded and initialised.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct DeviceHandle(*mut c_void);

// SAFETY: nvml.h: "All NVML functions are thread-safe"; the handle is an opaque token that is only passed back.
unsafe impl Send for DeviceHandle {}
// SAFETY: as above.
unsafe impl Sync for DeviceHandle {}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Utilization {
    gpu_pct: c_uint,
    memory_pct: c_uint,
}

/// `nvmlFieldValue_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FieldValue {
    field_id: c_uint,
    scope_id: c_uint,
    timestamp_us: i64,
    latency_us: i64,
    value_type: c_uint,
    code: Code,
    /// A union of numbers, all of which begin at its first byte.
    value: [u8; 8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Field {
    TotalEnergyMj = 83,
    PowerInstantMw = 186,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NvmlFailure {
    NoSymbol {
        function: &'static str,
    },
    Code {
        function: &'static str,
        code: i32,
        meaning: String,
    },
    Malformed {
        function: &'static str,
        wrong: String,
    },
}

impl fmt::Display for NvmlFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NvmlFailure::NoSymbol { function } => {
                write!(formatter, "{function}: this NVML library does not have it")
            }
            NvmlFailure::Code {
                function,
                code,
                meaning,
            } => {
                write!(formatter, "{function}: {meaning} ({code})")
            }
            NvmlFailure::Malformed { function, wrong } => write!(formatter, "{function}: {wrong}"),
        }
    }
}

type Result<T> = std::result::Result<T, NvmlFailure>;
type FromDevice<T> = unsafe extern "C" fn(DeviceHandle, *mut T) -> Code;
type TextFromDevice = unsafe extern "C" fn(DeviceHandle, *mut c_char, c_uint) -> Code;

/// The functions that the agent uses. The symbols stay valid because the library is dropped last.
pub struct NvmlLibrary {
    shutdown: Option<Symbol<unsafe extern "C" fn() -> Code>>,
    error_string: Option<Symbol<unsafe extern "C" fn(Code) -> *const c_char>>,
    device_count: Symbol<unsafe extern "C" fn(*mut c_uint) -> Code>,
    device_by_index: Symbol<unsafe extern "C" fn(c_uint, *mut DeviceHandle) -> Code>,
    uuid: Symbol<TextFromDevice>,
    supported_memory_clocks:
        Option<Symbol<unsafe extern "C" fn(DeviceHandle, *mut c_uint, *mut c_uint) -> Code>>,
    supported_graphics_clocks:
        Option<Symbol<unsafe extern "C" fn(DeviceHandle, c_uint, *mut c_uint, *mut c_uint) -> Code>>,
    set_locked_clocks: Option<Symbol<unsafe extern "C" fn(DeviceHandle, c_uint, c_uint) -> Code>>,
    reset_locked_clocks: Option<Symbol<unsafe extern "C" fn(DeviceHandle) -> Code>>,
    set_power_limit: Option<Symbol<unsafe extern "C" fn(DeviceHandle, c_uint) -> Code>>,
    power_limit_range: Option<Symbol<unsafe extern "C" fn(DeviceHandle, *mut c_uint, *mut c_uint) -> Code>>,
    default_power_limit: Option<Symbol<FromDevice<c_uint>>>,
    name: Option<Symbol<TextFromDevice>>,
    clock_info: Option<Symbol<unsafe extern "C" fn(DeviceHandle, c_uint, *mut c_uint) -> Code>>,
    power_usage: Option<Symbol<FromDevice<c_uint>>>,
    field_values: Option<Symbol<unsafe extern "C" fn(DeviceHandle, c_int, *mut FieldValue) -> Code>>,
    total_energy: Option<Symbol<FromDevice<c_ulonglong>>>,
    utilization: Option<Symbol<FromDevice<Utilization>>>,
    temperature: Option<Symbol<unsafe extern "C" fn(DeviceHandle, c_uint, *mut c_uint) -> Code>>,
    throttle_reasons: Option<Symbol<FromDevice<c_ulonglong>>>,
    power_limit: Option<Symbol<FromDevice<c_uint>>>,
    _library: Library,
}

impl NvmlLibrary {
    /// Loads the library and initialises NVML.
    pub fn open(path: &Path) -> std::result::Result<Self, String> {
        // SAFETY: loading runs the library's initialisers. The path is the operator's choice, from our own command
        // line, and by default NVIDIA's.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(|wrong| with_causes(&wrong))?;
        // SAFETY: every symbol is given the type that nvml.h declares for it, here and in `required`/`optional` below.
        let this = unsafe {
            let init: Symbol<unsafe extern "C" fn() -> Code> = required(&library, "nvmlInit_v2")?;
            let this = Self {
                shutdown: optional(&library, "nvmlShutdown"),
                error_string: optional(&library, "nvmlErrorString"),
                device_count: required(&library, "nvmlDeviceGetCount_v2")?,
                device_by_index: required(&library, "nvmlDeviceGetHandleByIndex_v2")?,
                uuid: required(&library, "nvmlDeviceGetUUID")?,
                supported_memory_clocks: optional(&library, "nvmlDeviceGetSupportedMemoryClocks"),
                supported_graphics_clocks: optional(&library, "nvmlDeviceGetSupportedGraphicsClocks"),
                set_locked_clocks: optional(&library, "nvmlDeviceSetGpuLockedClocks"),
                reset_locked_clocks: optional(&library, "nvmlDeviceResetGpuLockedClocks"),
                set_power_limit: optional(&library, "nvmlDeviceSetPowerManagementLimit"),
                power_limit_range: optional(&library, "nvmlDeviceGetPowerManagementLimitConstraints"),
                default_power_limit: optional(&library, "nvmlDeviceGetPowerManagementDefaultLimit"),
                name: optional(&library, "nvmlDeviceGetName"),
                clock_info: optional(&library, "nvmlDeviceGetClockInfo"),
                power_usage: optional(&library, "nvmlDeviceGetPowerUsage"),
                field_values: optional(&library, "nvmlDeviceGetFieldValues"),
                total_energy: optional(&library, "nvmlDeviceGetTotalEnergyConsumption"),
                utilization: optional(&library, "nvmlDeviceGetUtilizationRates"),
                temperature: optional(&library, "nvmlDeviceGetTemperature"),
                // The newer name first; both tell the same bits.
                throttle_reasons: optional(&library, "nvmlDeviceGetCurrentClocksEventReasons")
                    .or_else(|| optional(&library, "nvmlDeviceGetCurrentClocksThrottleReasons")),
                power_limit: optional(&library, "nvmlDeviceGetPowerManagementLimit"),
                _library: library,
            };
            this.check("nvmlInit_v2", init())
                .map_err(|wrong| wrong.to_string())?;
            this
        };
        Ok(this)
    }

    /// By index. One that is lost (fallen off the bus) has a failure in its place.
    pub fn devices(&self) -> Result<Vec<Result<DeviceHandle>>> {
        let mut count = 0;
        // SAFETY: NVML writes one `unsigned int`.
        self.check("nvmlDeviceGetCount_v2", unsafe {
            (self.device_count)(&raw mut count)
        })?;
        let handles = (0..count).map(|index| {
            let mut handle = DeviceHandle(std::ptr::null_mut());
            // SAFETY: NVML writes one handle.
            let code = unsafe { (self.device_by_index)(index, &raw mut handle) };
            self.check("nvmlDeviceGetHandleByIndex_v2", code).map(|()| handle)
        });
        Ok(handles.collect())
    }

    pub fn uuid(&self, device: DeviceHandle) -> Result<String> {
        self.text("nvmlDeviceGetUUID", &self.uuid, device)
    }

    pub fn name(&self, device: DeviceHandle) -> Result<String> {
        let function = "nvmlDeviceGetName";
        self.text(function, known(&self.name, function)?, device)
    }

    /// In NVML's order, which is not promised.
    pub fn memory_clocks_mhz(&self, device: DeviceHandle) -> Result<Vec<u32>> {
        let function = "nvmlDeviceGetSupportedMemoryClocks";
        let supported = known(&self.supported_memory_clocks, function)?;
        let list = |count: *mut c_uint, clocks: *mut c_uint| {
            // SAFETY: `clocks_with` passes a buffer of `*count` entries; NVML writes no more than that.
            unsafe { supported(device, count, clocks) }
        };
        self.clocks_with(function, list)
    }

    pub fn graphics_clocks_mhz(&self, device: DeviceHandle, memory_mhz: u32) -> Result<Vec<u32>> {
        let function = "nvmlDeviceGetSupportedGraphicsClocks";
        let supported = known(&self.supported_graphics_clocks, function)?;
        let list = |count: *mut c_uint, clocks: *mut c_uint| {
            // SAFETY: as in `memory_clocks_mhz`.
            unsafe { supported(device, memory_mhz, count, clocks) }
        };
        self.clocks_with(function, list)
    }

    /// Both ways: a clock that could not be reset must not be locked.
    pub fn can_lock_clocks(&self) -> bool {
        self.set_locked_clocks.is_some() && self.reset_locked_clocks.is_some()
    }

    pub fn lock_clocks(&self, device: DeviceHandle, min_mhz: u32, max_mhz: u32) -> Result<()> {
        let function = "nvmlDeviceSetGpuLockedClocks";
        // SAFETY: plain numbers and a handle of this library.
        let code = unsafe { known(&self.set_locked_clocks, function)?(device, min_mhz, max_mhz) };
        self.check(function, code)
    }

    pub fn reset_clocks(&self, device: DeviceHandle) -> Result<()> {
        let function = "nvmlDeviceResetGpuLockedClocks";
        // SAFETY: a handle of this library.
        let code = unsafe { known(&self.reset_locked_clocks, function)?(device) };
        self.check(function, code)
    }

    pub fn can_limit_power(&self) -> bool {
        self.set_power_limit.is_some()
    }

    pub fn set_power_limit_mw(&self, device: DeviceHandle, limit_mw: u32) -> Result<()> {
        let function = "nvmlDeviceSetPowerManagementLimit";
        // SAFETY: a plain number and a handle of this library.
        let code = unsafe { known(&self.set_power_limit, function)?(device, limit_mw) };
        self.check(function, code)
    }

    /// The lowest and the highest limit that can be set.
    pub fn power_limit_range_mw(&self, device: DeviceHandle) -> Result<(u32, u32)> {
        let function = "nvmlDeviceGetPowerManagementLimitConstraints";
        let (mut lowest_mw, mut highest_mw) = (0, 0);
        let range = known(&self.power_limit_range, function)?;
        // SAFETY: NVML writes two `unsigned int`.
        let code = unsafe { range(device, &raw mut lowest_mw, &raw mut highest_mw) };
        self.check(function, code).map(|()| (lowest_mw, highest_mw))
    }

    /// The limit in force.
    pub fn power_limit_mw(&self, device: DeviceHandle) -> Result<u32> {
        self.one("nvmlDeviceGetPowerManagementLimit", &self.power_limit, device)
    }

    pub fn clock_mhz(&self, device: DeviceHandle) -> Result<u32> {
        let function = "nvmlDeviceGetClockInfo";
        let mut clock_mhz = 0;
        // SAFETY: NVML writes one `unsigned int`.
        let code = unsafe { known(&self.clock_info, function)?(device, CLOCK_GRAPHICS, &raw mut clock_mhz) };
        self.check(function, code).map(|()| clock_mhz)
    }

    pub fn power_usage_mw(&self, device: DeviceHandle) -> Result<u32> {
        self.one("nvmlDeviceGetPowerUsage", &self.power_usage, device)
    }

    pub fn total_energy_mj(&self, device: DeviceHandle) -> Result<u64> {
        self.one("nvmlDeviceGetTotalEnergyConsumption", &self.total_energy, device)
    }

    pub fn utilization_pct(&self, device: DeviceHandle) -> Result<u32> {
        let both = self.one("nvmlDeviceGetUtilizationRates", &self.utilization, device)?;
        Ok(both.gpu_pct)
    }

    pub fn throttle_reasons(&self, device: DeviceHandle) -> Result<u64> {
        self.one(
            "nvmlDeviceGetCurrentClocksThrottleReasons",
            &self.throttle_reasons,
            device,
        )
    }

    pub fn default_power_limit_mw(&self, device: DeviceHandle) -> Result<u32> {
        self.one(
            "nvmlDeviceGetPowerManagementDefaultLimit",
            &self.default_power_limit,
            device,
        )
    }

    pub fn temperature_c(&self, device: DeviceHandle) -> Result<u32> {
        const TEMPERATURE_GPU: c_uint = 0;
        let function = "nvmlDeviceGetTemperature";
        let mut temperature_c = 0;
        // SAFETY: NVML writes one `unsigned int`.
        let code =
            unsafe { known(&self.temperature, function)?(device, TEMPERATURE_GPU, &raw mut temperature_c) };
        self.check(function, code).map(|()| temperature_c)
    }

    /// One call for all of them. A field that this device does not know is `None`.
    pub fn fields<const N: usize>(
        &self,
        device: DeviceHandle,
        fields: [Field; N],
    ) -> Result<[Option<u64>; N]> {
        let function = "nvmlDeviceGetFieldValues";
        let mut values = fields.map(|field| FieldValue {
            field_id: field as c_uint,
            ..FieldValue::default()
        });
        let count = c_int::try_from(N).expect("a handful of fields");
        // SAFETY: NVML reads and writes `count` entries, which is how many there are.
        let code = unsafe { known(&self.field_values, function)?(device, count, values.as_mut_ptr()) };
        self.check(function, code)?;
        Ok(values.map(|value| (value.code == SUCCESS).then(|| value.number()).flatten()))
    }

    fn one<T: Default>(
        &self,
        function: &'static str,
        symbol: &Option<Symbol<FromDevice<T>>>,
        device: DeviceHandle,
    ) -> Result<T> {
        let mut value = T::default();
        // SAFETY: the symbol's type says that NVML writes one `T`.
        let code = unsafe { known(symbol, function)?(device, &raw mut value) };
        self.check(function, code).map(|()| value)
    }

    fn text(
        &self,
        function: &'static str,
        read: &Symbol<TextFromDevice>,
        device: DeviceHandle,
    ) -> Result<String> {
        let mut bytes = [0u8; TEXT_BYTES];
        let length = c_uint::try_from(bytes.len()).expect("96 fits");
        // SAFETY: NVML writes at most `length` bytes, its closing NUL included.
        let code = unsafe { read(device, bytes.as_mut_ptr().cast(), length) };
        self.check(function, code)?;
        let text = CStr::from_bytes_until_nul(&bytes).map_err(|wrong| NvmlFailure::Malformed {
            function,
            wrong: wrong.to_string(),
        })?;
        Ok(text.to_string_lossy().into_owned())
    }

    fn clocks_with(
        &self,
        function: &'static str,
        list: impl Fn(*mut c_uint, *mut c_uint) -> Code,
    ) -> Result<Vec<u32>> {
        let mut clocks_mhz = vec![0; CLOCKS_FIRST];
        loop {
            let mut count = c_uint::try_from(clocks_mhz.len()).expect("CLOCKS_MAX fits");
            let code = list(&raw mut count, clocks_mhz.as_mut_ptr());
            let wanted = count as usize;
            if code == INSUFFICIENT_SIZE && clocks_mhz.len() < wanted && wanted <= CLOCKS_MAX {
                clocks_mhz.resize(wanted, 0);
                continue;
            }
            self.check(function, code)?;
            clocks_mhz.truncate(wanted);
            return Ok(clocks_mhz);
        }
    }

    fn check(&self, function: &'static str, code: Code) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        let meaning = match &self.error_string {
            // SAFETY: NVML answers every code with a string of its own that lives as long as the library.
            Some(error_string) => unsafe {
                let text = error_string(code);
                if text.is_null() {
                    "unknown".to_owned()
                } else {
                    CStr::from_ptr(text).to_string_lossy().into_owned()
                }
            },
            None => "error".to_owned(),
        };
        Err(NvmlFailure::Code {
            function,
            code,
            meaning,
        })
    }
}

impl Drop for NvmlLibrary {
    fn drop(&mut self) {
        if let Some(shutdown) = &self.shutdown {
            // SAFETY: pairs with the nvmlInit_v2 of `open`; no handle is used after this.
            unsafe { shutdown() };
        }
    }
}

impl FieldValue {
    /// `None` for what is not a whole number, or is negative.
    fn number(&self) -> Option<u64> {
        let low = u32::from_ne_bytes(self.value[..4].try_into().expect("four bytes"));
        let whole = u64::from_ne_bytes(self.value);
        // nvmlValueType_t: 0 double, 1 unsigned int, 2 unsigned long, 3 unsigned long long, 4 signed long long, 5 int.
        match self.value_type {
            1 => Some(u64::from(low)),
            2 | 3 => Some(whole),
            4 => i64::from_ne_bytes(self.value).try_into().ok(),
            5 => low.cast_signed().try_into().ok(),
            _ => None,
        }
    }
}

fn known<'a, T>(symbol: &'a Option<Symbol<T>>, function: &'static str) -> Result<&'a Symbol<T>> {
    symbol.as_ref().ok_or(NvmlFailure::NoSymbol { function })
}

/// # Safety
/// `T` is the type of the function.
unsafe fn required<T>(library: &Library, name: &str) -> std::result::Result<Symbol<T>, String> {
    // SAFETY: the caller's promise.
    unsafe { library.get(name) }.map_err(|wrong| format!("{name}: {}", with_causes(&wrong)))
}

/// The loader's own words stand in the cause, not in the error.
fn with_causes(wrong: &dyn std::error::Error) -> String {
    match wrong.source() {
        Some(cause) => format!("{wrong}: {}", with_causes(cause)),
        None => wrong.to_string(),
    }
}

/// # Safety
/// `T` is the type of the function.
unsafe fn optional<T>(library: &Library, name: &str) -> Option<Symbol<T>> {
    // SAFETY: the caller's promise.
    unsafe { library.get(name) }.ok()
}
