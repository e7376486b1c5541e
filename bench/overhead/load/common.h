// What the stub and the load have in common: the clock, timers in a heap, and sockets of the loopback.
#ifndef COMMON_H
#define COMMON_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 16384
/* Before the 16 hexadecimal digits of the instant (CLOCK_MONOTONIC, ns) at which the stub wrote an event. No gateway touches the
   text of an answer, so the load finds it whatever a gateway makes of the JSON around it. */
#define MARK " @t"
#define MARK_BYTES 3
#define STAMP_BYTES 16

static inline uint64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (uint64_t)at.tv_sec * 1000000000ull + (uint64_t)at.tv_nsec;
}

static inline void die(const char *what) {
  perror(what);
  exit(1);
}

static inline void raise_descriptors(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

static inline struct sockaddr_in loopback(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static inline void no_delay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Timers: a binary heap. `turn` tells a connection's use of a slot from an earlier one, so that old timers need not be removed. */
typedef struct {
  uint64_t due_ns;
  uint32_t slot, turn;
} Timer;

static Timer *timers;
static size_t timer_count, timer_room;

static inline void timer_add(uint64_t due_ns, uint32_t slot, uint32_t turn) {
  if (timer_count == timer_room) {
    timer_room = timer_room == 0 ? 1024 : 2 * timer_room;
    timers = realloc(timers, timer_room * sizeof *timers);
    if (timers == NULL) die("timers");
  }
  size_t at = timer_count++;
  while (at > 0 && timers[(at - 1) / 2].due_ns > due_ns) {
    timers[at] = timers[(at - 1) / 2];
    at = (at - 1) / 2;
  }
  timers[at] = (Timer){due_ns, slot, turn};
}

static inline Timer timer_take(void) {
  Timer first = timers[0], last = timers[--timer_count];
  size_t at = 0;
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= timer_count) break;
    if (child + 1 < timer_count && timers[child + 1].due_ns < timers[child].due_ns) child++;
    if (timers[child].due_ns >= last.due_ns) break;
    timers[at] = timers[child];
    at = child;
  }
  timers[at] = last;
  return first;
}

/* Waits for events until `until_ns`, to the nanosecond: epoll_wait's milliseconds would bunch up what is sent. */
static inline int wait_until(int epoll, struct epoll_event *events, int room, uint64_t until_ns) {
  uint64_t now = now_ns(), left = until_ns > now ? until_ns - now : 0;
  struct timespec timeout = {.tv_sec = (time_t)(left / 1000000000ull), .tv_nsec = (long)(left % 1000000000ull)};
  int count = epoll_pwait2(epoll, events, room, &timeout, NULL);
  if (count < 0 && errno != EINTR) die("epoll_pwait2");
  return count < 0 ? 0 : count;
}
#endif
