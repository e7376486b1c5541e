"""Empty stand-ins for the NVIDIA libraries that torch's build for CUDA is linked to, where there is no GPU to use them.

    cuda-stubs.py SITE_PACKAGES

They are named and versioned as the loader wants them, and every function in them fails (100: cudaErrorNoDevice). Without a GPU torch
calls none of them; the runtime (libcudart), which it does ask whether there is one, is NVIDIA's own. Wants gcc and binutils.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

# Libraries whose versions are not called as the file is.
VERSION_NAMES = {"libnvshmem_host.so.3": "NVSHMEM"}


def main() -> None:
    site = pathlib.Path(sys.argv[1])
    torch = site / "torch" / "lib"
    present = {path.name for path in [*torch.glob("*.so*"), *site.glob("nvidia/*/lib/*.so*")]}
    needed: set[str] = set()
    defined: set[str] = set()
    plain: set[str] = set()
    versioned: dict[str, set[str]] = collections.defaultdict(set)
    for library in torch.glob("*.so"):
        needed.update(re.findall(r"\(NEEDED\).*\[(.*?)\]", output_of("readelf", "--dynamic", library)))
        for line in output_of("nm", "--dynamic", library).splitlines():
            *_, kind, symbol = line.split()
            name, _, version = symbol.partition("@")
            if kind != "U":
                defined.add(name)
            elif version:
                versioned[version].add(name)
            else:
                plain.add(name)
    missing = [name for name in sorted(needed - present) if re.match(r"lib(cu|nv|nccl)", name)]
    for name in missing:
        version = VERSION_NAMES.get(name, name)
        own = name.split(".so")[0].removeprefix("lib").lower()
        symbols = versioned[version] or {symbol for symbol in plain - defined if symbol.lower().startswith(own)}
        compile_stub(torch / name, symbols, version if versioned[version] else None)
    print(f"{torch}: {len(missing)} stand-ins for NVIDIA's libraries")


def compile_stub(path: pathlib.Path, symbols: set[str], version: str | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source, script = pathlib.Path(directory) / "stub.c", pathlib.Path(directory) / "versions"
        source.write_text("".join(f"int {symbol}(void) {{ return 100; }}\n" for symbol in sorted(symbols)))
        script.write_text(f"{version} {{ global: *; }};\n")
        versions = [f"-Wl,--version-script={script}"] if version else []
        # `-w`: some are called as functions that the compiler knows.
        subprocess.run(["gcc", "-w", "-shared", "-fPIC", "-o", path, f"-Wl,-soname,{path.name}", source, *versions], check=True)


def output_of(*command: object) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
