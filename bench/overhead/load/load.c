// Puts load on a gateway and says what it saw, as one JSON line. It sends the same bytes (`--request`, a whole HTTP/1.1 request)
// again and again over kept connections to 127.0.0.1, one thread.
//   --mode closed   `--conns` connections, each sends again when its answer is complete
//   --mode open     `--rate` requests a second at random instants drawn beforehand, over at most `--conns` connections. Latency
//                   counts from the instant drawn: what a slow answer holds up is held against it (no coordinated omission)
//   --mode hold     opens `--conns` streams, says `held N` when each has its first event, and keeps them until SIGTERM
//   --leave SHARE   of open: so many of the clients leave, at any moment: half said, unanswered, in the middle of a stream
// `--cpu-of PID,PID` is read when the measured window begins (after `--warm` seconds) and when it ends.
#include "common.h"
#include <math.h>

#define READ_BYTES 262144
#define TAIL_BYTES (MARK_BYTES + STAMP_BYTES - 1)
#define HEAD_BYTES_MAX 8192
#define BACKLOG_MAX 1048576

/* Logarithmic with 64 steps per doubling: within 1.6 %. */
typedef struct {
  uint64_t counts[64 * 64], total;
} Histogram;

static void record(Histogram *h, uint64_t ns) {
  int bits = ns < 64 ? 6 : 64 - __builtin_clzll(ns);
  h->counts[(bits - 6) * 64 + (int)((ns >> (bits > 6 ? bits - 7 : 0)) & 63)]++;
  h->total++;
}

static double quantile_us(const Histogram *h, double share) {
  uint64_t wanted = (uint64_t)ceil(share * (double)h->total), seen = 0;
  for (int i = 0; i < 64 * 64; i++) {
    seen += h->counts[i];
    if (seen < wanted || seen == 0) continue;
    int exponent = i / 64, step = i % 64;
    return exponent == 0 ? step / 1e3 : ldexp(64 + step + 0.5, exponent - 1) / 1e3;
  }
  return 0;
}

enum Reading { HEAD, SIZED, CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_BODY, CHUNK_END, TRAILER, UNTIL_CLOSE };

typedef struct {
  int fd;
  uint32_t turn;
  uint8_t busy, connected, measured, answered, failed, closes, leaves;
  enum Reading reading;
  uint64_t from_ns; /* the instant that latency counts from */
  uint64_t idle_from_ns;
  size_t sent, send_bytes, head_bytes, tail_bytes, line_bytes;
  uint64_t body_left;
  char tail[TAIL_BYTES];
  char head[HEAD_BYTES_MAX + 1];
} Connection;

static Connection *connections;
static uint32_t idle[CONNECTIONS_MAX], idle_count, closed_slots[CONNECTIONS_MAX], closed_count;
static int epoll, port, open_loop, hold;
static char *request;
static size_t request_bytes;
static double leave_share;
static uint64_t random_state = 0x9e3779b97f4a7c15ull;
static uint64_t window_from_ns, window_to_ns;
static Histogram latency, first_event, transit;
static uint64_t done, errors, left, events_seen, holding, unanswered;
static uint64_t *backlog, backlog_from, backlog_to;
static volatile sig_atomic_t stopped;

static double uniform(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (double)(random_state >> 11) / 9007199254740992.0;
}

static int in_window(uint64_t at_ns) { return at_ns >= window_from_ns && at_ns < window_to_ns; }

static void shut(uint32_t slot) {
  Connection *c = &connections[slot];
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
  c->busy = 0;
  c->turn++;
  closed_slots[closed_count++] = slot;
}

static void send_on(uint32_t slot);

#define IDLE_NS_MAX (60ULL * 1000000000ULL)

static void begin(uint32_t slot, uint64_t from_ns) {
  Connection *c = &connections[slot];
  /* As a load balancer does it: the gateway may be closing a connection that has been idle for long at this very moment. */
  if (c->fd >= 0 && !c->busy && c->idle_from_ns > 0 && now_ns() - c->idle_from_ns > IDLE_NS_MAX) {
    close(c->fd);
    c->fd = -1;
    c->turn++;
  }
  if (c->fd < 0) {
    struct sockaddr_in address = loopback(port);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    no_delay(c->fd);
    c->connected = 0;
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS) die("connect");
    struct epoll_event both = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = slot};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &both);
  }
  c->busy = 1;
  c->from_ns = from_ns;
  c->measured = (uint8_t)in_window(from_ns);
  c->sent = c->head_bytes = c->tail_bytes = 0;
  c->send_bytes = request_bytes;
  c->answered = c->failed = c->closes = 0;
  c->reading = HEAD;
  c->leaves = leave_share > 0 && uniform() < leave_share;
  if (c->leaves) {
    /* A third in the middle of what they say; the others whenever, from at once to a second later. */
    if (uniform() < 0.33) c->send_bytes = (size_t)(uniform() * (double)request_bytes);
    double within = uniform();
    timer_add(now_ns() + (uint64_t)(within * within * 1e9), slot, c->turn);
  }
  if (c->connected) send_on(slot);
}

/* A connection is free again: the open loop gives it what waits, the closed loop the next request at once. */
static void next(uint32_t slot) {
  Connection *c = &connections[slot];
  if (open_loop) {
    if (backlog_from < backlog_to) begin(slot, backlog[backlog_from++ % BACKLOG_MAX]);
    else if (c->fd >= 0) {
      c->idle_from_ns = now_ns();
      idle[idle_count++] = slot;
    }
  } else if (now_ns() < window_to_ns) begin(slot, now_ns());
}

static void finish(uint32_t slot, int failed) {
  Connection *c = &connections[slot];
  uint64_t now = now_ns();
  int leaves = c->leaves;
  if (hold) {
    /* A stream that is to be held must not end. */
    errors++;
    holding -= c->answered;
    return shut(slot);
  }
  if (leaves && failed) left++;
  else if (c->measured) {
    if (failed) {
      if (errors++ == 0) fprintf(stderr, "load: the first that failed: %.*s, %zu of %zu bytes sent\n", (int)strcspn(c->head, "\r"), c->head_bytes > 0 ? c->head : "no answer", c->sent, c->send_bytes);
    } else {
      done++;
      record(&latency, now - c->from_ns);
    }
  }
  if (failed || c->closes || leaves) {
    shut(slot);
    slot = closed_slots[--closed_count];
    if (open_loop && backlog_from == backlog_to) {
      closed_slots[closed_count++] = slot;
      return;
    }
  } else c->busy = 0;
  next(slot);
}

static void send_on(uint32_t slot) {
  Connection *c = &connections[slot];
  while (c->sent < c->send_bytes) {
    ssize_t wrote = write(c->fd, request + c->sent, c->send_bytes - c->sent);
    if (wrote < 0) {
      if (errno != EAGAIN && errno != EINTR) finish(slot, 1);
      return;
    }
    c->sent += (size_t)wrote;
  }
}

static void mark_found(Connection *c, const char *stamp, uint64_t now) {
  char digits[STAMP_BYTES + 1];
  memcpy(digits, stamp, STAMP_BYTES);
  digits[STAMP_BYTES] = 0;
  uint64_t written = strtoull(digits, NULL, 16);
  if (!c->answered) {
    c->answered = 1;
    holding++;
    if (c->measured) record(&first_event, now - c->from_ns);
  }
  if (in_window(now)) {
    events_seen++;
    record(&transit, now > written ? now - written : 0);
  }
}

/* Decoded body: `bytes` has TAIL_BYTES of room before it, for the piece of a mark that ended the piece before. */
static void scan(Connection *c, char *bytes, size_t count, uint64_t now) {
  char *from = bytes - c->tail_bytes, *end = bytes + count;
  memcpy(from, c->tail, c->tail_bytes);
  for (char *mark; (mark = memmem(from, (size_t)(end - from), MARK, MARK_BYTES)) != NULL;) {
    if (mark + MARK_BYTES + STAMP_BYTES > end) break;
    mark_found(c, mark + MARK_BYTES, now);
    from = mark + MARK_BYTES + STAMP_BYTES;
  }
  size_t rest = (size_t)(end - from);
  c->tail_bytes = rest < TAIL_BYTES ? rest : TAIL_BYTES;
  memcpy(c->tail, end - c->tail_bytes, c->tail_bytes);
}

static void read_head(Connection *c) {
  if (strncmp(c->head, "HTTP/1.1 2", 10) != 0) c->failed = 1;
  c->closes = strcasestr(c->head, "\r\nconnection: close") != NULL;
  char *length = strcasestr(c->head, "\r\ncontent-length:");
  if (strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL) c->reading = CHUNK_SIZE;
  else if (length != NULL) {
    c->reading = SIZED;
    c->body_left = strtoull(length + 17, NULL, 10);
  } else c->reading = UNTIL_CLOSE;
  if (c->reading == UNTIL_CLOSE) c->closes = 1;
  if (c->reading == CHUNK_SIZE) c->body_left = c->line_bytes = 0;
}

/* Reads what came; true when the answer is complete. */
static int feed(Connection *c, const char *bytes, size_t count, uint64_t now) {
  static char decoded[TAIL_BYTES + READ_BYTES];
  size_t decoded_bytes = 0, at = 0;
  int complete = 0;
  while (at < count && !complete) {
    switch (c->reading) {
      case HEAD: {
        size_t room = HEAD_BYTES_MAX - c->head_bytes, take = count - at < room ? count - at : room;
        memcpy(c->head + c->head_bytes, bytes + at, take);
        size_t before = c->head_bytes;
        c->head_bytes += take;
        c->head[c->head_bytes] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (end == NULL) {
          if (c->head_bytes == HEAD_BYTES_MAX) c->failed = 1, complete = 1;
          at += take;
          break;
        }
        at += (size_t)(end + 4 - c->head) - before;
        end[2] = 0;
        read_head(c);
        complete = c->reading == SIZED && c->body_left == 0;
        break;
      }
      case SIZED:
      case CHUNK_BODY:
      case UNTIL_CLOSE: {
        size_t take = count - at;
        if (c->reading != UNTIL_CLOSE && take > c->body_left) take = (size_t)c->body_left;
        memcpy(decoded + TAIL_BYTES + decoded_bytes, bytes + at, take);
        decoded_bytes += take;
        at += take;
        if (c->reading == UNTIL_CLOSE) break;
        c->body_left -= take;
        if (c->body_left > 0) break;
        if (c->reading == SIZED) complete = 1;
        else c->reading = CHUNK_END;
        break;
      }
      case CHUNK_SIZE: {
        char digit = bytes[at++];
        if (digit >= '0' && digit <= '9') c->body_left = c->body_left * 16 + (uint64_t)(digit - '0');
        else if ((digit | 32) >= 'a' && (digit | 32) <= 'f') c->body_left = c->body_left * 16 + (uint64_t)((digit | 32) - 'a' + 10);
        else if (digit == '\n') c->reading = c->body_left > 0 ? CHUNK_BODY : TRAILER;
        else c->reading = CHUNK_EXTENSION;
        break;
      }
      case CHUNK_EXTENSION:
        if (bytes[at++] == '\n') c->reading = c->body_left > 0 ? CHUNK_BODY : TRAILER;
        break;
      case CHUNK_END:
        if (bytes[at++] == '\n') c->reading = CHUNK_SIZE;
        break;
      case TRAILER: {
        char byte = bytes[at++];
        if (byte == '\n' && c->line_bytes == 0) complete = 1;
        else if (byte == '\n') c->line_bytes = 0;
        else if (byte != '\r') c->line_bytes++;
        break;
      }
    }
  }
  if (decoded_bytes > 0) scan(c, decoded + TAIL_BYTES, decoded_bytes, now);
  return complete;
}

static void receive(uint32_t slot) {
  static char bytes[READ_BYTES];
  Connection *c = &connections[slot];
  uint32_t turn = c->turn;
  for (;;) {
    ssize_t count = read(c->fd, bytes, sizeof bytes);
    if (count < 0) {
      if (errno == EAGAIN || errno == EINTR) return;
      count = 0;
    }
    if (count == 0) {
      if (c->busy) finish(slot, c->reading != UNTIL_CLOSE || c->failed);
      else {
        /* The gateway has closed an idle connection: it is taken off the list when it is next looked at. */
        close(c->fd);
        c->fd = -1;
        c->turn++;
      }
      return;
    }
    if (!c->busy) continue;
    if (feed(c, bytes, (size_t)count, now_ns())) finish(slot, c->failed);
    if (c->fd < 0 || c->turn != turn || (size_t)count < sizeof bytes) return;
  }
}

static void arrive(uint64_t at_ns) {
  if (idle_count > 0) {
    uint32_t slot = idle[--idle_count];
    begin(slot, at_ns);
  } else if (closed_count > 0) begin(closed_slots[--closed_count], at_ns);
  else if (backlog_to - backlog_from < BACKLOG_MAX) backlog[backlog_to++ % BACKLOG_MAX] = at_ns;
  else errors++;
}

/* CPU time of processes, all threads, in seconds. */
static double cpu_of(const char *pids) {
  double total = 0;
  for (const char *at = pids; at != NULL && *at != 0;) {
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", strtol(at, NULL, 10));
    FILE *file = fopen(path, "r");
    if (file != NULL) {
      unsigned long user, system;
      char *name_end;
      if (fgets(line, sizeof line, file) != NULL && (name_end = strrchr(line, ')')) != NULL && sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2) total += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
      fclose(file);
    }
    at = strchr(at, ',');
    if (at != NULL) at++;
  }
  return total;
}

static void on_signal(int number) {
  (void)number;
  stopped = 1;
}

static void print_quantiles(const char *name, const Histogram *h) {
  printf(",\"%s\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"count\":%llu}", name, quantile_us(h, 0.5), quantile_us(h, 0.9), quantile_us(h, 0.99), (unsigned long long)h->total);
}

int main(int argc, char **argv) {
  const char *mode = "closed", *request_path = NULL, *cpu_pids = NULL, *stub_pid = NULL;
  uint32_t conns = 64;
  double rate = 0, seconds = 5, warm = 1, ramp = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *name = argv[i], *value = argv[i + 1];
    if (strcmp(name, "--port") == 0) port = atoi(value);
    else if (strcmp(name, "--mode") == 0) mode = value;
    else if (strcmp(name, "--conns") == 0) conns = (uint32_t)atoi(value);
    else if (strcmp(name, "--rate") == 0) rate = atof(value);
    else if (strcmp(name, "--seconds") == 0) seconds = atof(value);
    else if (strcmp(name, "--warm") == 0) warm = atof(value);
    else if (strcmp(name, "--ramp") == 0) ramp = atof(value);
    else if (strcmp(name, "--leave") == 0) leave_share = atof(value);
    else if (strcmp(name, "--request") == 0) request_path = value;
    else if (strcmp(name, "--cpu-of") == 0) cpu_pids = value;
    else if (strcmp(name, "--stub") == 0) stub_pid = value;
    else return fprintf(stderr, "load: no option %s\n", name), 2;
  }
  open_loop = strcmp(mode, "open") == 0;
  hold = strcmp(mode, "hold") == 0;
  if (port == 0 || request_path == NULL || conns == 0 || conns > CONNECTIONS_MAX || (open_loop && rate <= 0)) return fprintf(stderr, "load: wants --port, --request, --conns up to %d, and --rate for --mode open\n", CONNECTIONS_MAX), 2;
  FILE *file = fopen(request_path, "r");
  if (file == NULL) die(request_path);
  request = malloc(1 << 20);
  request_bytes = fread(request, 1, 1 << 20, file);
  fclose(file);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGTERM, on_signal);
  raise_descriptors();
  connections = calloc(conns, sizeof *connections);
  backlog = malloc(BACKLOG_MAX * sizeof *backlog);
  epoll = epoll_create1(0);

  uint64_t from = now_ns();
  window_from_ns = from + (uint64_t)(warm * 1e9);
  window_to_ns = hold ? UINT64_MAX : window_from_ns + (uint64_t)(seconds * 1e9);
  uint32_t started = 0;
  for (uint32_t slot = 0; slot < conns; slot++) connections[slot].fd = -1;
  if (open_loop) for (uint32_t slot = conns; slot-- > 0;) closed_slots[closed_count++] = slot;
  uint64_t due = from;
  double cpu_before = 0, own_before = 0, stub_before = 0;
  char own_pid[16];
  snprintf(own_pid, sizeof own_pid, "%d", getpid());
  int measuring = 0, told = 0;
  struct epoll_event events[256];

  for (;;) {
    uint64_t now = now_ns();
    if (!measuring && now >= window_from_ns) {
      measuring = 1;
      cpu_before = cpu_of(cpu_pids);
      own_before = cpu_of(own_pid);
      stub_before = cpu_of(stub_pid);
    }
    if (now >= window_to_ns || stopped) break;
    uint64_t until = measuring ? window_to_ns : window_from_ns;
    if (hold) until = now + 100000000ull;
    /* Started one after the other over `--ramp`: together they would tick together. */
    while (!open_loop && started < conns) {
      uint64_t start = from + (uint64_t)(ramp * 1e9 * started / conns);
      if (start > now) {
        if (start < until) until = start;
        break;
      }
      begin(started++, now);
    }
    while (open_loop && due <= now) {
      arrive(due);
      due += (uint64_t)(-log(1 - uniform()) / rate * 1e9);
    }
    if (open_loop && due < until) until = due;
    if (timer_count > 0 && timers[0].due_ns < until) until = timers[0].due_ns;
    int count = wait_until(epoll, events, 256, until);
    for (int i = 0; i < count; i++) {
      uint32_t slot = events[i].data.u32;
      Connection *c = &connections[slot];
      if (c->fd < 0) continue;
      uint32_t turn = c->turn;
      if ((events[i].events & EPOLLOUT) && !(events[i].events & (EPOLLERR | EPOLLHUP))) {
        c->connected = 1;
        if (c->busy) send_on(slot);
      }
      if (c->fd >= 0 && c->turn == turn && (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP))) receive(slot);
    }
    for (now = now_ns(); timer_count > 0 && timers[0].due_ns <= now;) {
      Timer timer = timer_take();
      Connection *c = &connections[timer.slot];
      if (c->busy && c->turn == timer.turn && c->leaves) finish(timer.slot, 1);
    }
    if (hold && !told && holding == conns) {
      told = 1;
      printf("held %llu\n", (unsigned long long)holding);
      fflush(stdout);
    }
  }
  double cpu = cpu_of(cpu_pids) - cpu_before, own = cpu_of(own_pid) - own_before, stub = cpu_of(stub_pid) - stub_before;
  uint64_t now = now_ns();
  double took = (double)(now - window_from_ns) / 1e9;
  /* What is not answered yet has waited at least this long, and counts. */
  if (open_loop) {
    for (uint32_t slot = 0; slot < conns; slot++) {
      Connection *c = &connections[slot];
      if (!c->busy || !c->measured || c->leaves) continue;
      unanswered++;
      record(&latency, now - c->from_ns);
      if (!c->answered && first_event.total > 0) record(&first_event, now - c->from_ns);
    }
    for (; backlog_from < backlog_to; backlog_from++) {
      uint64_t at = backlog[backlog_from % BACKLOG_MAX];
      if (!in_window(at)) continue;
      unanswered++;
      record(&latency, now - at);
      if (first_event.total > 0) record(&first_event, now - at);
    }
  }
  printf("{\"seconds\":%.6f,\"requests\":%llu,\"errors\":%llu,\"left\":%llu,\"unanswered\":%llu,\"events\":%llu,\"held\":%llu,\"cpuS\":%.4f,\"loadCpuS\":%.4f,\"stubCpuS\":%.4f", took, (unsigned long long)done, (unsigned long long)errors, (unsigned long long)left, (unsigned long long)unanswered, (unsigned long long)events_seen, (unsigned long long)holding, cpu, own, stub);
  print_quantiles("latencyUs", &latency);
  print_quantiles("firstEventUs", &first_event);
  print_quantiles("transitUs", &transit);
  printf("}\n");
  return 0;
}
