/* Stands before NVIDIA's run-time compiler (NVRTC_REAL, a file) and writes down what it is asked, in the folder NVRTC_SEEN:
 * `kernels` has a line per request, "compiled|refused NAME HASH"; of a refused kernel HASH.cu and HASH.words are kept.
 * What was compiled once, by the empty file NVRTC_ONCE/HASH, is not compiled again: its code is an empty string, which the driver
 * beside does not read. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct program { void *real; char *source; int known; };

static void *real(const char *name) {
  static void *library;
  if (!library) library = dlopen(getenv("NVRTC_REAL"), RTLD_NOW | RTLD_LOCAL);
  void *function = library ? dlsym(library, name) : NULL;
  if (!function) {
    fprintf(stderr, "NVRTC_REAL: %s\n", dlerror());
    exit(70);
  }
  return function;
}
#define REAL(name, ...) ((int (*)(__VA_ARGS__))real(#name))

static FILE *written(const char *variable, const char *name, const char *how) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", getenv(variable), name);
  FILE *file = fopen(path, how);
  if (!file && *how != 'r') {
    perror(path);
    exit(70);
  }
  return file;
}

/* FNV-1a, 64 bits. */
static uint64_t hashed(uint64_t hash, const char *text) {
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 1099511628211u;
  return hash;
}

/* `name` of: __global__ void __launch_bounds__(256) name( */
static void entry(const char *source, char *name, size_t room) {
  const char *at = strstr(source, "__global__");
  at = at ? strstr(at, "void ") : NULL;
  at = at ? at + 5 : "?";
  while (!strncmp(at, "__", 2) && strchr(at, ')')) at = strchr(at, ')') + 1, at += strspn(at, " \n");
  size_t length = strcspn(at, "( \n");
  snprintf(name, room, "%.*s", (int)length, at);
}

int nvrtcVersion(int *major, int *minor) { return REAL(nvrtcVersion, int *, int *)(major, minor); }
const char *nvrtcGetErrorString(int code) { return ((const char *(*)(int))real("nvrtcGetErrorString"))(code); }

int nvrtcCreateProgram(struct program **made, const char *source, const char *name, int n, const char *const *headers, const char *const *names) {
  struct program *program = calloc(1, sizeof *program);
  program->source = strdup(source);
  *made = program;
  return REAL(nvrtcCreateProgram, void **, const char *, const char *, int, const char *const *, const char *const *)(&program->real, source, name, n, headers, names);
}
int nvrtcDestroyProgram(struct program **program) {
  int code = REAL(nvrtcDestroyProgram, void **)(&(*program)->real);
  free((*program)->source);
  free(*program);
  *program = NULL;
  return code;
}
int nvrtcCompileProgram(struct program *program, int n, const char *const *options) {
  uint64_t hash = hashed(14695981039346656037u, program->source);
  for (int i = 0; i < n; i++) hash = hashed(hash, options[i]);
  char id[32], file[64], name[256];
  snprintf(id, sizeof id, "%016llx", (unsigned long long)hash);
  entry(program->source, name, sizeof name);
  FILE *once = written("NVRTC_ONCE", id, "r");
  program->known = once != NULL;
  int code = once ? 0 : REAL(nvrtcCompileProgram, void *, int, const char *const *)(program->real, n, options);
  if (once) fclose(once);
  else if (code == 0) fclose(written("NVRTC_ONCE", id, "w"));
  else {
    size_t length = 0;
    REAL(nvrtcGetProgramLogSize, void *, size_t *)(program->real, &length);
    char *words = calloc(1, length + 1);
    REAL(nvrtcGetProgramLog, void *, char *)(program->real, words);
    snprintf(file, sizeof file, "%s.cu", id);
    FILE *source = written("NVRTC_SEEN", file, "w");
    fputs(program->source, source);
    fclose(source);
    snprintf(file, sizeof file, "%s.words", id);
    FILE *log = written("NVRTC_SEEN", file, "w");
    fputs(words, log);
    fclose(log);
    free(words);
  }
  FILE *kernels = written("NVRTC_SEEN", "kernels", "a");
  fprintf(kernels, "%s %s %s\n", code ? "refused" : "compiled", name, id);
  fclose(kernels);
  return code;
}
int nvrtcGetProgramLogSize(struct program *program, size_t *length) { return REAL(nvrtcGetProgramLogSize, void *, size_t *)(program->real, length); }
int nvrtcGetProgramLog(struct program *program, char *words) { return REAL(nvrtcGetProgramLog, void *, char *)(program->real, words); }
int nvrtcGetPTXSize(struct program *program, size_t *length) {
  if (!program->known) return REAL(nvrtcGetPTXSize, void *, size_t *)(program->real, length);
  *length = 1;
  return 0;
}
int nvrtcGetPTX(struct program *program, char *code) {
  if (!program->known) return REAL(nvrtcGetPTX, void *, char *)(program->real, code);
  *code = 0;
  return 0;
}
