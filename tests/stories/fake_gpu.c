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
enum { COPY, REDUCE, GATHER, EXCHANGE };
enum { MOST = 16 };
struct item {
  int kind; void *to; const void *from; size_t bytes; struct comm *comm; uint64_t number; int type, how;
  const void *sends[MOST]; void *receives[MOST]; /* of an exchange, by peer */
  struct item *next;
};
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
#ifdef OLD_DRIVER
enum { TOO_NEW = 222 };
int cuModuleLoadData(void **module, const void *ptx) { (void)module; (void)ptx; return TOO_NEW; }
#else
int cuModuleLoadData(void **module, const void *ptx) { *module = (void *)ptx; return strcmp(ptx, "PTX") ? INVALID : OK; }
#endif
int cuModuleUnload(void *module) { (void)module; return OK; }
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
struct group { char id[128]; int world, here, gave_up; uint64_t number; struct item *given[MOST]; int arrived, taken; char *sum; struct group *next; };
struct comm { struct group *group; int rank; uint64_t asked; };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct group *groups;

static size_t width(int type) { return type == 4 ? 8 : type == 9 ? 2 : 4; }

/* What comes of all ranks' parts: a sum or maximum; or their bytes in order, of which an exchange has a row per sender. */
static void join(struct group *g, struct item *item) {
  size_t count = item->bytes / width(item->type), w = g->world;
  g->sum = malloc(item->bytes * w * w + 1);
  if (item->kind == REDUCE) memcpy(g->sum, g->given[0]->to, item->bytes);
  for (size_t r = 0; r < w; r++) {
    if (item->kind == GATHER) memcpy(g->sum + r * item->bytes, g->given[r]->from, item->bytes);
    if (item->kind == EXCHANGE)
      for (size_t p = 0; p < w; p++) memcpy(g->sum + (r * w + p) * item->bytes, g->given[r]->sends[p], item->bytes);
    if (item->kind != REDUCE || r == 0) continue;
    void *theirs = g->given[r]->to;
    for (size_t i = 0; i < count; i++) {
      if (item->type == 7) ((float *)g->sum)[i] += ((float *)theirs)[i];
      else if (item->how == 0) ((uint64_t *)g->sum)[i] += ((uint64_t *)theirs)[i];
      else if (((int64_t *)theirs)[i] > ((int64_t *)g->sum)[i]) ((int64_t *)g->sum)[i] = ((int64_t *)theirs)[i];
    }
  }
}

static void take(struct group *g, struct item *item) {
  size_t w = g->world, rank = item->comm->rank;
  if (item->kind == EXCHANGE)
    for (size_t r = 0; r < w; r++) memcpy(item->receives[r], g->sum + (r * w + rank) * item->bytes, item->bytes);
  else memcpy(item->to, g->sum, item->kind == GATHER ? item->bytes * w : item->bytes);
}

/* Whether this rank's part of a collective is done. */
static int collective(struct item *item) {
  struct group *g = item->comm->group;
  int done = 0;
  pthread_mutex_lock(&lock);
  if (g->number == item->number && !g->given[item->comm->rank]) {
    g->given[item->comm->rank] = item;
    if (++g->arrived == g->world) join(g, item);
  }
  if (g->number == item->number && g->sum && g->given[item->comm->rank]) {
    take(g, item);
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

/* ---- the compiler ---- */
int nvrtcVersion(int *major, int *minor) { *major = 12, *minor = 9; return OK; }
int nvrtcCreateProgram(void **p, const char *source, const char *name, int n, const char *const *headers, const char *const *names) {
  (void)name, (void)headers, (void)names;
  *p = (void *)source;
  return n || !strstr(source, "__global__") ? INVALID : OK;
}
#ifdef WITHOUT_BUILTINS
static const char log_text[] = "a warning\nnvrtc: error: failed to open libnvrtc-builtins.so.12.9.\n";
enum { COMPILED = 6 };
#else
static const char log_text[] = "";
enum { COMPILED = OK };
#endif
int nvrtcCompileProgram(void *p, int n, const char *const *options) {
  (void)p;
  return n == 2 && !strcmp(options[0], "--gpu-architecture=sm_90a") && !strncmp(options[1], "-I/", 3) ? COMPILED : INVALID;
}
int nvrtcGetProgramLogSize(void *p, size_t *n) { (void)p; *n = sizeof log_text; return OK; }
int nvrtcGetProgramLog(void *p, char *text) { (void)p; memcpy(text, log_text, sizeof log_text); return OK; }
int nvrtcGetPTXSize(void *p, size_t *n) { (void)p; *n = 4; return OK; }
int nvrtcGetPTX(void *p, char *text) { (void)p; memcpy(text, "PTX", 4); return OK; }
int nvrtcDestroyProgram(void **p) { *p = NULL; return OK; }

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
  if (type == 9) return INVALID; /* would be rounded on the way: nobody should ask for it */
  return push(stream, (struct item){ .kind = REDUCE, .comm = c, .to = to, .bytes = count * width(type), .number = c->asked++, .type = type, .how = how });
}
int ncclAllGather(const void *from, void *to, size_t count, int type, void *comm, void *stream) {
  struct comm *c = comm;
  if (from == to) return INVALID;
  return push(stream, (struct item){ .kind = GATHER, .comm = c, .from = from, .to = to, .bytes = count * width(type), .number = c->asked++, .type = type });
}
/* Sends and receives, as one exchange of each group; of every peer one of either, of one length. */
static __thread struct item open_group;
static __thread void *open_stream;
static __thread int is_open;
int ncclGroupStart(void) {
  memset(&open_group, 0, sizeof open_group);
  open_group.kind = EXCHANGE;
  is_open = 1;
  return OK;
}
static int join_group(size_t count, int type, int peer, void *comm, void *stream) {
  size_t bytes = count * width(type);
  if (!is_open || peer >= ((struct comm *)comm)->group->world || (open_group.comm && open_group.bytes != bytes)) return INVALID;
  open_group.comm = comm;
  open_group.bytes = bytes;
  open_group.type = type;
  open_stream = stream;
  return OK;
}
int ncclSend(const void *from, size_t count, int type, int peer, void *comm, void *stream) {
  int code = join_group(count, type, peer, comm, stream);
  if (code == OK) open_group.sends[peer] = from;
  return code;
}
int ncclRecv(void *to, size_t count, int type, int peer, void *comm, void *stream) {
  int code = join_group(count, type, peer, comm, stream);
  if (code == OK) open_group.receives[peer] = to;
  return code;
}
int ncclGroupEnd(void) {
  is_open = 0;
  for (int peer = 0; peer < open_group.comm->group->world; peer++)
    if (!open_group.sends[peer] || !open_group.receives[peer]) return INVALID;
  open_group.number = open_group.comm->asked++;
  push(open_stream, open_group);
  return IN_PROGRESS; /* as a communicator that does not block may */
}
int ncclCommFinalize(void *comm) { (void)comm; return IN_PROGRESS; }
int ncclCommDestroy(void *comm) { (void)comm; return OK; }
int ncclCommAbort(void *comm) {
  pthread_mutex_lock(&lock);
  ((struct comm *)comm)->group->gave_up = 1;
  pthread_mutex_unlock(&lock);
  return OK;
}
