/* A driver and an NCCL of the host's memory, for ranks that are threads of one process: what our own table of functions and
 * the engine over it may be held against where there is no GPU. Streams are queues that run when they are asked, so that a
 * collective whose peers have not come leaves its stream busy, as on a device. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#define VERSION 23203
#endif

enum { OK = 0, NOT_READY = 600, IN_PROGRESS = 7, REMOTE = 6, INVALID = 4 };

/* ---- the driver ---- */
struct item { int kind; void *to; const void *from; size_t bytes; struct comm *comm; uint64_t number; int type, how; struct item *next; };
struct stream { struct item *first, *last; };

int cuInit(unsigned flags) { (void)flags; return OK; }
int cuGetErrorString(int code, const char **text) { *text = code == INVALID ? "a value that is none" : "something else"; return OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = 2; return OK; }
int cuDeviceGet(int *device, int ordinal) { if (ordinal > 1) return INVALID; *device = ordinal; return OK; }
int cuDeviceGetName(char *name, int length, int device) { (void)device; strncpy(name, "a GPU of the host's memory", length); return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)1 << 30; return OK; }
int cuDeviceGetAttribute(int *value, int which, int device) { (void)device; *value = which == 75 ? 9 : 0; return OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) { static char contexts[2]; *context = &contexts[device]; return OK; }
int cuCtxSetCurrent(void *context) { (void)context; return OK; }
int cuMemAlloc_v2(uint64_t *address, size_t bytes) { *address = (uint64_t)malloc(bytes); return OK; }
int cuMemFree_v2(uint64_t address) { free((void *)address); return OK; }
int cuMemAllocHost_v2(void **address, size_t bytes) { *address = malloc(bytes); return OK; }
int cuMemFreeHost(void *address) { free(address); return OK; }
int cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = calloc(1, sizeof(struct stream)); return OK; }

static int push(void *stream, struct item what) {
  struct stream *s = stream;
  struct item *item = malloc(sizeof *item);
  *item = what;
  item->next = NULL;
  if (s->last) s->last->next = item; else s->first = item;
  s->last = item;
  return OK;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  return push(stream, (struct item){ .to = (void *)to, .from = from, .bytes = bytes });
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  return push(stream, (struct item){ .to = to, .from = (void *)from, .bytes = bytes });
}

/* ---- groups of ranks ---- */
enum { MOST = 16 };
struct group { char id[128]; int world, here, gave_up; uint64_t number; void *given[MOST]; int arrived, taken; void *sum; struct group *next; };
struct comm { struct group *group; int rank; uint64_t asked; };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct group *groups;

static size_t width(int type) { return type == 4 ? 8 : 4; }

static void add(struct group *g, size_t count, int type, int how) {
  memcpy(g->sum, g->given[0], count * width(type));
  for (int r = 1; r < g->world; r++)
    for (size_t i = 0; i < count; i++) {
      if (type == 7) ((float *)g->sum)[i] += ((float *)g->given[r])[i];
      else if (how == 0) ((uint64_t *)g->sum)[i] += ((uint64_t *)g->given[r])[i];
      else if (((int64_t *)g->given[r])[i] > ((int64_t *)g->sum)[i]) ((int64_t *)g->sum)[i] = ((int64_t *)g->given[r])[i];
    }
}

/* Whether this rank's part of a collective is done. */
static int collective(struct item *item) {
  struct group *g = item->comm->group;
  size_t count = item->bytes / width(item->type);
  int done = 0;
  pthread_mutex_lock(&lock);
  if (g->number == item->number && !g->given[item->comm->rank]) {
    g->given[item->comm->rank] = item->to;
    if (++g->arrived == g->world) {
      g->sum = malloc(item->bytes + 1);
      add(g, count, item->type, item->how);
    }
  }
  if (g->number == item->number && g->sum && g->given[item->comm->rank]) {
    memcpy(item->to, g->sum, item->bytes);
    done = 1;
    item->number = UINT64_MAX;
    if (++g->taken == g->world) {
      free(g->sum);
      g->sum = NULL;
      memset(g->given, 0, sizeof g->given);
      g->arrived = g->taken = 0;
      g->number++;
    }
  }
  pthread_mutex_unlock(&lock);
  return done;
}

int cuStreamQuery(void *stream) {
  struct stream *s = stream;
  while (s->first) {
    struct item *item = s->first;
    if (item->comm) { if (!collective(item)) return NOT_READY; }
    else memcpy(item->to, item->from, item->bytes);
    s->first = item->next;
    if (!s->first) s->last = NULL;
    free(item);
  }
  return OK;
}

/* ---- NCCL ---- */
struct id { char bytes[128]; };
struct config { size_t size; unsigned magic, version; int blocking; };

int ncclGetVersion(int *version) { *version = VERSION; return OK; }
const char *ncclGetErrorString(int code) { return code == REMOTE ? "a peer has gone" : "no error that this library knows"; }
int ncclGetUniqueId(struct id *id) {
  static int made;
  memset(id, 0, sizeof *id);
  pthread_mutex_lock(&lock);
  memcpy(id->bytes, &made, sizeof made);
  made++;
  id->bytes[127] = 42; /* the last byte must arrive as well */
  pthread_mutex_unlock(&lock);
  return OK;
}
#ifndef WITHOUT_CONFIG
int ncclCommInitRankConfig(void **comm, int world, struct id id, int rank, struct config *config) {
  if (config->magic != 0xcafebeef || config->size < 24 || config->blocking || id.bytes[127] != 42) return INVALID;
  pthread_mutex_lock(&lock);
  struct group *g = groups;
  while (g && memcmp(g->id, id.bytes, 128)) g = g->next;
  if (!g) {
    g = calloc(1, sizeof *g);
    memcpy(g->id, id.bytes, 128);
    g->world = world;
    g->next = groups;
    groups = g;
  }
  g->here++;
  pthread_mutex_unlock(&lock);
  struct comm *c = calloc(1, sizeof *c);
  c->group = g;
  c->rank = rank;
  *comm = c;
  return IN_PROGRESS;
}
#endif
int ncclCommGetAsyncError(void *comm, int *state) {
  struct comm *c = comm;
  pthread_mutex_lock(&lock);
  *state = c->group->gave_up ? REMOTE : c->group->here < c->group->world ? IN_PROGRESS : OK;
  pthread_mutex_unlock(&lock);
  return OK;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type, int how, void *comm, void *stream) {
  struct comm *c = comm;
  if (from != to) return INVALID;
  return push(stream, (struct item){ .comm = c, .to = to, .bytes = count * width(type), .number = c->asked++, .type = type, .how = how });
}
int ncclCommFinalize(void *comm) { (void)comm; return IN_PROGRESS; }
int ncclCommDestroy(void *comm) { (void)comm; return OK; }
int ncclCommAbort(void *comm) {
  pthread_mutex_lock(&lock);
  ((struct comm *)comm)->group->gave_up = 1;
  pthread_mutex_unlock(&lock);
  return OK;
}
