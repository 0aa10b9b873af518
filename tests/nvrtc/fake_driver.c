/* A driver (libcuda) of a GPU that is not there, FAKE_GPU by name: what it is asked of itself are that GPU's answers, its memory is
 * zeros whatever is written to it, and a launch runs nothing. It refuses what a driver refuses of a launch's sizes. Programs that
 * compile their kernels at run time do so as they would on the GPU.
 *
 * It must not be called libcuda.so.1: NVRTC opens that name by itself and asks for more than is here. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2 };
enum { MAX_THREADS = 1024, MAX_BLOCK_Z = 64, MAX_GRID_X = 2147483647, MAX_GRID_YZ = 65535, SHARED = 48 * 1024 };

/* Compute capability, multiprocessors, threads of one, KiB of shared memory of one and of a block that asks for it, GiB of memory:
 * the CUDA programming guide's table and NVIDIA's data sheets. */
static const struct gpu { const char *name; int major, minor, processors, threads, shared_of_all, shared_if_asked; size_t memory; } gpus[] = {
  { "H100", 9, 0, 132, 2048, 228, 227, 80 },
  { "A100", 8, 0, 108, 2048, 164, 163, 80 },
  { "L40S", 8, 9, 142, 1536, 100, 99, 48 },
  { "V100", 7, 0, 80, 2048, 96, 96, 32 },
};
static const struct gpu *gpu(void) {
  const char *name = getenv("FAKE_GPU");
  for (size_t i = 0; name && i < sizeof gpus / sizeof *gpus; i++)
    if (!strcmp(name, gpus[i].name)) return &gpus[i];
  fprintf(stderr, "FAKE_GPU=%s: not one of H100, A100, L40S, V100\n", name ? name : "");
  exit(70);
}
static size_t memory(void) { return gpu()->memory << 30; }

int cuInit(unsigned flags) { (void)flags; return OK; }
int cuGetErrorName(int code, const char **text) {
  *text = code == INVALID ? "INVALID_VALUE" : code == OUT_OF_MEMORY ? "OUT_OF_MEMORY" : "NONE";
  return OK;
}
int cuGetErrorString(int code, const char **text) { return cuGetErrorName(code, text); }
int cuDriverGetVersion(int *version) {
  const char *given = getenv("FAKE_DRIVER_VERSION"); /* 12090 */
  *version = given ? atoi(given) : 13000;
  return OK;
}

/* ---- the device ---- */
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? OK : INVALID; }
int cuDeviceGetName(char *name, int length, int device) { (void)device; snprintf(name, length, "NVIDIA %s that is not there", gpu()->name); return OK; }
int cuDeviceGetPCIBusId(char *name, int length, int device) { (void)device; snprintf(name, length, "0000:17:00.0"); return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = memory(); return OK; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  (void)device;
  switch (which) {
  case 1: case 2: case 3: *value = MAX_THREADS; break; /* threads of a block, along x and y */
  case 4: *value = MAX_BLOCK_Z; break;
  case 5: *value = MAX_GRID_X; break;
  case 6: case 7: *value = MAX_GRID_YZ; break;
  case 8: *value = SHARED; break;
  case 10: *value = 32; break;    /* threads of a warp */
  case 12: *value = 65536; break; /* registers of a block */
  case 16: *value = gpu()->processors; break; /* multiprocessors */
  case 39: *value = gpu()->threads; break;
  case 75: *value = gpu()->major; break;
  case 76: *value = gpu()->minor; break;
  case 81: *value = gpu()->shared_of_all * 1024; break;
  case 97: *value = gpu()->shared_if_asked * 1024; break;
  default: *value = 1; /* it can */
  }
  return OK;
}

/* ---- contexts, streams, events: there is nothing to wait for ---- */
static __thread void *current;
int cuDevicePrimaryCtxRetain(void **context, int device) { static char one; (void)device; *context = &one; return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return OK; }
int cuCtxSetCurrent(void *context) { current = context; return OK; }
int cuCtxGetCurrent(void **context) { *context = current; return OK; }
int cuCtxGetDevice(int *device) { *device = 0; return OK; }
int cuCtxSynchronize(void) { return OK; }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = *greatest = 0; return OK; }
int cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = malloc(1); return OK; }
int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { (void)priority; return cuStreamCreate(stream, flags); }
int cuStreamDestroy_v2(void *stream) { free(stream); return OK; }
int cuStreamSynchronize(void *stream) { (void)stream; return OK; }
int cuStreamQuery(void *stream) { (void)stream; return OK; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { (void)stream; (void)event; (void)flags; return OK; }
int cuEventCreate(void **event, unsigned flags) { (void)flags; *event = malloc(1); return OK; }
int cuEventDestroy_v2(void *event) { free(event); return OK; }
int cuEventRecord(void *event, void *stream) { (void)event; (void)stream; return OK; }
int cuEventSynchronize(void *event) { (void)event; return OK; }
int cuEventQuery(void *event) { (void)event; return OK; }

/* ---- memory: addresses that nobody writes; what is read is zeros ---- */
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  static uint64_t next = (uint64_t)1 << 40;
  if (bytes > memory()) return OUT_OF_MEMORY;
  *address = __atomic_fetch_add(&next, (bytes + 511) / 512 * 512, __ATOMIC_RELAXED);
  return OK;
}
int cuMemAllocAsync(uint64_t *address, size_t bytes, void *stream) { (void)stream; return cuMemAlloc_v2(address, bytes); }
int cuMemFree_v2(uint64_t address) { (void)address; return OK; }
int cuMemFreeAsync(uint64_t address, void *stream) { (void)stream; return cuMemFree_v2(address); }
int cuMemAllocHost_v2(void **address, size_t bytes) { *address = malloc(bytes); return *address ? OK : OUT_OF_MEMORY; }
int cuMemFreeHost(void *address) { free(address); return OK; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) { (void)to; (void)from; (void)bytes; (void)stream; return OK; }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) { (void)to; (void)from; (void)bytes; (void)stream; return OK; }
int cuMemsetD8Async(uint64_t address, unsigned char value, size_t n, void *stream) { (void)address; (void)value; (void)n; (void)stream; return OK; }

/* All but one: the first matrix of 64·64 f32 that is read is the product which the program tries before it takes tensor cores
 * (`try_product` in src/tensor/matmul.rs): of a[i][k] = (64·i + k) mod 7 − 3 and its transpose. */
enum { N = 64 };
static int is_tried(size_t bytes) {
  static int over;
  return bytes == N * N * sizeof(float) && !__atomic_fetch_add(&over, 1, __ATOMIC_RELAXED);
}
static void multiply(float *row, int i) {
  for (int j = 0; j < N; j++) {
    row[j] = 0;
    for (int k = 0; k < N; k++) row[j] += (float)(((N * i + k) % 7 - 3) * ((N * j + k) % 7 - 3));
  }
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  (void)from; (void)stream;
  memset(to, 0, bytes);
  if (is_tried(bytes)) for (int i = 0; i < N; i++) multiply((float *)to + N * i, i);
  return OK;
}
/* A copy of rows (CUDA_MEMCPY2D), between the host's memory (1) and the device's. */
struct rows {
  size_t from_x, from_y; int from_kind; const void *from_host; uint64_t from_device; void *from_array; size_t from_pitch;
  size_t to_x, to_y; int to_kind; void *to_host; uint64_t to_device; void *to_array; size_t to_pitch;
  size_t width, height;
};
int cuMemcpy2DAsync_v2(const struct rows *copy, void *stream) {
  (void)stream;
  if (copy->to_kind != 1) return OK;
  size_t pitch = copy->to_pitch ? copy->to_pitch : copy->width;
  int tried = copy->height == N && is_tried(copy->width * copy->height);
  for (size_t y = 0; y < copy->height; y++) {
    char *row = (char *)copy->to_host + (copy->to_y + y) * pitch + copy->to_x;
    memset(row, 0, copy->width);
    if (tried) multiply((float *)row, (int)y);
  }
  return OK;
}

/* ---- kernels ---- */
struct kernel { char name[256]; int shared; };
int cuModuleLoadData(void **module, const void *image) { (void)image; *module = malloc(1); return OK; }
int cuModuleUnload(void *module) { free(module); return OK; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)module;
  struct kernel *kernel = calloc(1, sizeof *kernel);
  snprintf(kernel->name, sizeof kernel->name, "%s", name);
  kernel->shared = SHARED;
  *function = kernel;
  return OK;
}
int cuFuncSetAttribute(void *function, int which, int value) {
  struct kernel *kernel = function;
  if (which != 8) return OK; /* the most of shared memory that a launch may name */
  if (value > gpu()->shared_if_asked * 1024) return INVALID;
  if (value > kernel->shared) kernel->shared = value;
  return OK;
}
static int within(unsigned value, unsigned most) { return value >= 1 && value <= most; }
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                   unsigned shared, void *stream, void **arguments, void **more) {
  struct kernel *kernel = function;
  (void)stream; (void)arguments; (void)more;
  int grid = within(grid_x, MAX_GRID_X) && within(grid_y, MAX_GRID_YZ) && within(grid_z, MAX_GRID_YZ);
  int block = within(block_x, MAX_THREADS) && within(block_y, MAX_THREADS) && within(block_z, MAX_BLOCK_Z) &&
              (uint64_t)block_x * block_y * block_z <= MAX_THREADS;
  if (grid && block && shared <= (unsigned)kernel->shared) return OK;
  const char *folder = getenv("NVRTC_SEEN");
  char path[4096];
  snprintf(path, sizeof path, "%s/launches", folder ? folder : ".");
  FILE *file = fopen(path, "a");
  if (file) {
    fprintf(file, "%s: grid %u %u %u, block %u %u %u, shared %u\n", kernel->name, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared);
    fclose(file);
  }
  return INVALID;
}
