// Stands in for a model server: answers every POST at once, and costs as little as it can. What it answers is said in the
// prompt, the one thing that every gateway hands through: `@stub e=EVENTS g=GAP_US d=DELAY_US h=1`.
//   no e      a chat completion as one JSON, after d
//   e, g      a stream of e events, one write each, g apart and the first after d
//   e, g=0    as fast as they are taken, in writes of up to 32
//   h=1       after the last event the stream stays open until the client goes
// stub PORT: on 127.0.0.1, HTTP/1.1 with kept connections, one thread. Any GET answers 200, for health checks.
#include "common.h"

#define REQUEST_BYTES_MAX 65536
#define BATCH_EVENTS 32

#define EVENT_HEAD "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" MARK
#define EVENT_TAIL "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
#define EVENT_BYTES (sizeof EVENT_HEAD - 1 + STAMP_BYTES + sizeof EVENT_TAIL - 1)
#define LAST_EVENT "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n"
#define DONE_EVENT "data: [DONE]\n\n"
#define STREAM_HEAD "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
#define JSON_BODY "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Some text of an ordinary length, as a model would write it for a short question.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":180,\"completion_tokens\":17,\"total_tokens\":197}}"
#define GET_BODY "{\"object\":\"list\",\"status\":\"ok\",\"model_path\":\"bench\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"bench\",\"max_model_len\":131072}]}"
#define OUT_BYTES (sizeof STREAM_HEAD + BATCH_EVENTS * (EVENT_BYTES + 16) + sizeof LAST_EVENT + sizeof DONE_EVENT + 64)

typedef struct {
  int fd;
  uint32_t turn;
  size_t got;             /* bytes of the request */
  char *out;              /* what the socket has not taken */
  size_t out_from, out_to;
  uint32_t events_left, gap_us;
  uint8_t streaming, begun, hold, in_flood, json_due;
  char in[REQUEST_BYTES_MAX + 1];
} Connection;

static Connection *connections;
static uint32_t free_slots[CONNECTIONS_MAX], free_count;
static uint32_t flood[CONNECTIONS_MAX], flood_count;
static int epoll;
static char json_answer[2048], get_answer[1024];

static void drop(uint32_t slot) {
  Connection *c = &connections[slot];
  for (uint32_t i = 0; c->in_flood && i < flood_count; i++) {
    if (flood[i] != slot) continue;
    flood[i] = flood[--flood_count];
    break;
  }
  c->in_flood = 0;
  close(c->fd);
  c->fd = -1;
  c->turn++;
  free_slots[free_count++] = slot;
}

/* False where the connection is lost. What does not fit waits for the socket. */
static int push(Connection *c) {
  while (c->out_from < c->out_to) {
    ssize_t wrote = write(c->fd, c->out + c->out_from, c->out_to - c->out_from);
    if (wrote < 0) return errno == EAGAIN || errno == EINTR;
    c->out_from += (size_t)wrote;
  }
  c->out_from = c->out_to = 0;
  return 1;
}

static void put(Connection *c, const char *bytes, size_t count) {
  memcpy(c->out + c->out_to, bytes, count);
  c->out_to += count;
}

static void put_chunk(Connection *c, const char *bytes, size_t count) {
  c->out_to += (size_t)sprintf(c->out + c->out_to, "%zx\r\n", count);
  put(c, bytes, count);
  put(c, "\r\n", 2);
}

/* One chunk per event, as engines write them. */
static void put_events(Connection *c, uint32_t count) {
  static char chunk[EVENT_BYTES + 16];
  static size_t stamp_at, chunk_bytes;
  if (chunk_bytes == 0) {
    int head = sprintf(chunk, "%zx\r\n%s", EVENT_BYTES, EVENT_HEAD);
    stamp_at = (size_t)head;
    memcpy(chunk + head + STAMP_BYTES, EVENT_TAIL "\r\n", sizeof EVENT_TAIL + 1);
    chunk_bytes = (size_t)head + STAMP_BYTES + sizeof EVENT_TAIL + 1;
  }
  char stamp[STAMP_BYTES + 1];
  sprintf(stamp, "%016llx", (unsigned long long)now_ns());
  memcpy(chunk + stamp_at, stamp, STAMP_BYTES);
  for (uint32_t i = 0; i < count; i++) put(c, chunk, chunk_bytes);
  c->events_left -= count;
}

/* The next events of a stream, its head before the first and its end after the last. False where the connection is lost. */
static int stream_on(Connection *c, uint32_t count) {
  if (!c->begun) put(c, STREAM_HEAD, sizeof STREAM_HEAD - 1);
  c->begun = 1;
  put_events(c, count < c->events_left ? count : c->events_left);
  if (c->events_left == 0 && !c->hold) {
    put_chunk(c, LAST_EVENT, sizeof LAST_EVENT - 1);
    put_chunk(c, DONE_EVENT, sizeof DONE_EVENT - 1);
    put(c, "0\r\n\r\n", 5);
    c->streaming = 0;
  }
  return push(c);
}

static unsigned long directive(const char *text, const char *name) {
  const char *at = strstr(text, name);
  return at == NULL ? 0 : strtoul(at + strlen(name), NULL, 10);
}

/* Answers the request in `in`. False where the connection is lost. */
static int answer(uint32_t slot, const char *body) {
  Connection *c = &connections[slot];
  if (c->out == NULL && (c->out = malloc(OUT_BYTES)) == NULL) die("malloc");
  if (strncmp(c->in, "GET ", 4) == 0) {
    put(c, get_answer, strlen(get_answer));
    return push(c);
  }
  char text[128] = "";
  const char *said = strstr(body, "@stub");
  if (said != NULL) {
    strncpy(text, said + 5, sizeof text - 1);
    text[strcspn(text, "\"\\")] = 0;
  }
  uint64_t delay_us = directive(text, " d=");
  c->events_left = (uint32_t)directive(text, " e=");
  c->gap_us = (uint32_t)directive(text, " g=");
  c->hold = directive(text, " h=") != 0;
  c->streaming = c->events_left > 0;
  c->json_due = !c->streaming;
  c->begun = 0;
  if (delay_us > 0) {
    timer_add(now_ns() + delay_us * 1000, slot, c->turn);
    return 1;
  }
  if (c->json_due) {
    c->json_due = 0;
    put(c, json_answer, strlen(json_answer));
    return push(c);
  }
  if (c->gap_us > 0) {
    timer_add(now_ns() + (uint64_t)c->gap_us * 1000, slot, c->turn);
    return stream_on(c, 1);
  }
  c->in_flood = 1;
  flood[flood_count++] = slot;
  return 1;
}

/* False where the connection is over. */
static int read_requests(uint32_t slot) {
  Connection *c = &connections[slot];
  for (;;) {
    ssize_t count = read(c->fd, c->in + c->got, REQUEST_BYTES_MAX - c->got);
    if (count == 0) return 0;
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    c->got += (size_t)count;
    c->in[c->got] = 0;
    char *body = strstr(c->in, "\r\n\r\n");
    if (body == NULL) continue;
    body += 4;
    size_t have = c->got - (size_t)(body - c->in), length = 0;
    char kept = *body;
    *body = 0;
    char *header = strcasestr(c->in, "\r\ncontent-length:");
    int chunked = strcasestr(c->in, "\r\ntransfer-encoding: chunked") != NULL;
    *body = kept;
    if (header != NULL) length = strtoul(header + 17, NULL, 10);
    if (chunked ? strstr(body, "0\r\n\r\n") == NULL : have < length) {
      if (c->got == REQUEST_BYTES_MAX) return 0;
      continue;
    }
    c->got = 0;
    if (!answer(slot, body)) return 0;
  }
}

static int on_timer(uint32_t slot) {
  Connection *c = &connections[slot];
  if (c->json_due) {
    c->json_due = 0;
    put(c, json_answer, strlen(json_answer));
    return push(c);
  }
  if (!c->streaming || c->events_left == 0) return 1;
  if (c->gap_us == 0) {
    if (!c->in_flood) flood[flood_count++] = slot;
    c->in_flood = 1;
    return 1;
  }
  /* A reader that is behind gets the event when it is not: the stamp says when it was written. */
  if (c->out_from < c->out_to) timer_add(now_ns() + (uint64_t)c->gap_us * 1000, slot, c->turn);
  else {
    uint32_t left = c->events_left;
    if (!stream_on(c, 1)) return 0;
    if (left > 1) timer_add(now_ns() + (uint64_t)c->gap_us * 1000, slot, c->turn);
  }
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "stub PORT\n"), 2;
  signal(SIGPIPE, SIG_IGN);
  raise_descriptors();
  connections = calloc(CONNECTIONS_MAX, sizeof *connections);
  if (connections == NULL) die("calloc");
  for (uint32_t slot = CONNECTIONS_MAX; slot-- > 0;) free_slots[free_count++] = slot;
  sprintf(json_answer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", sizeof JSON_BODY - 1, JSON_BODY);
  sprintf(get_answer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", sizeof GET_BODY - 1, GET_BODY);

  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in address = loopback(atoi(argv[1]));
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
  if (listen(listener, 4096) != 0) die("listen");
  epoll = epoll_create1(0);
  struct epoll_event own = {.events = EPOLLIN, .data.u32 = CONNECTIONS_MAX}, events[256];
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &own);
  printf("ready\n");
  fflush(stdout);

  for (;;) {
    uint64_t until = flood_count > 0 ? 0 : timer_count > 0 ? timers[0].due_ns : now_ns() + 1000000000ull;
    int count = wait_until(epoll, events, 256, until);
    for (int i = 0; i < count; i++) {
      uint32_t slot = events[i].data.u32;
      if (slot == CONNECTIONS_MAX) {
        for (int fd; free_count > 0 && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
          no_delay(fd);
          slot = free_slots[--free_count];
          Connection *c = &connections[slot];
          c->fd = fd;
          c->got = c->out_from = c->out_to = 0;
          c->streaming = c->json_due = c->in_flood = 0;
          struct epoll_event both = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = slot};
          epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &both);
        }
        continue;
      }
      Connection *c = &connections[slot];
      if (c->fd < 0) continue;
      int alive = (events[i].events & (EPOLLHUP | EPOLLERR)) == 0;
      if (alive && (events[i].events & EPOLLIN)) alive = read_requests(slot);
      if (alive && (events[i].events & EPOLLRDHUP)) alive = 0;
      if (alive && (events[i].events & EPOLLOUT)) {
        alive = push(c);
        if (alive && c->streaming && c->gap_us == 0 && c->events_left > 0 && c->out_to == 0 && !c->in_flood && c->begun) {
          c->in_flood = 1;
          flood[flood_count++] = slot;
        }
      }
      if (!alive) drop(slot);
    }
    for (uint64_t now = now_ns(); timer_count > 0 && timers[0].due_ns <= now;) {
      Timer timer = timer_take();
      Connection *c = &connections[timer.slot];
      if (c->fd >= 0 && c->turn == timer.turn && !on_timer(timer.slot)) drop(timer.slot);
    }
    /* One write for each in turn; who cannot take more leaves the list until its socket says so. */
    uint32_t kept = 0;
    for (uint32_t i = 0; i < flood_count; i++) {
      uint32_t slot = flood[i];
      Connection *c = &connections[slot];
      int alive = stream_on(c, BATCH_EVENTS);
      if (alive && c->streaming && c->events_left > 0 && c->out_to == 0) flood[kept++] = slot;
      else c->in_flood = 0;
      if (!alive) drop(slot);
    }
    flood_count = kept;
  }
}
