// What a library in front of libc can make go wrong (LD_PRELOAD):
//   FAULT_SHORT_WRITES=1   write() to a file takes at most half of what it is given
//   FAULT_CLOCK_AFTER=N    from the Nth look on, the wall clock is an hour behind
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

ssize_t write(int fd, const void* bytes, size_t n) {
  static ssize_t (*next)(int, const void*, size_t);
  if (!next) next = (ssize_t(*)(int, const void*, size_t))dlsym(RTLD_NEXT, "write");
  struct stat status;
  if (getenv("FAULT_SHORT_WRITES") && n > 1 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) n /= 2;
  return next(fd, bytes, n);
}

int clock_gettime(clockid_t clock, struct timespec* now) {
  static int (*next)(clockid_t, struct timespec*);
  static int looks;
  if (!next) next = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  const int result = next(clock, now);
  const char* after = getenv("FAULT_CLOCK_AFTER");
  if (after && clock == CLOCK_REALTIME && __sync_add_and_fetch(&looks, 1) > atoi(after)) now->tv_sec -= 3600;
  return result;
}
