/* A stand-in for NVIDIA's libcudart: a GPU that computes nothing, and logs what it is asked.
 *
 * Device memory is host memory that no kernel touches, copies to and from it are real, and copies,
 * launches and waits are lines in the log. What CUDA's kernels would write stays unchanged: zeros,
 * mostly. All else that ONNX Runtime asks succeeds, by code that stand_ins.py writes.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct { unsigned x, y, z; } dim3;
enum { HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, BY_ADDRESS };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void dry_run_log(const char *format, ...) {
  static FILE *file;
  pthread_mutex_lock(&lock);
  if (!file) {
    const char *path = getenv("DRY_RUN_LOG");
    file = fopen(path ? path : "/dev/null", "a");
    setvbuf(file, NULL, _IOFBF, 1 << 20);
  }
  va_list arguments;
  va_start(arguments, format);
  vfprintf(file, format, arguments);
  va_end(arguments);
  fputc('\n', file);
  if (format[0] == '#') fflush(file); /* a mark, as dry_run_mark writes it */
  pthread_mutex_unlock(&lock);
}

void dry_run_mark(const char *text) { dry_run_log("#%s", text); }

/* ---- the device ---- */

static int sm = 90; /* compute capability, times ten */
void dry_run_claim(int capability) { sm = capability; }

static int multiprocessors(void) { return sm == 80 ? 108 : sm == 86 ? 80 : sm == 89 ? 58 : 132; }
static size_t shared_memory(void) { return (sm == 90 ? 227 : sm == 80 ? 163 : 99) << 10; }

int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaMemGetInfo(size_t *free, size_t *total) { *free = 140ul << 30; *total = 141ul << 30; return 0; }

/* offsets into cudaDeviceProp, the same in CUDA 12 and 13 as far as they are read */
int cudaGetDeviceProperties(char *p, int device) {
  memset(p, 0, 1008);
  strcpy(p, "no device");
  *(size_t *)(p + 288) = 141ul << 30;           /* totalGlobalMem */
  *(size_t *)(p + 296) = 48 << 10;              /* sharedMemPerBlock */
  *(int *)(p + 304) = 65536;                    /* regsPerBlock */
  *(int *)(p + 308) = 32;                       /* warpSize */
  *(int *)(p + 320) = 1024;                     /* maxThreadsPerBlock */
  *(int *)(p + 324) = *(int *)(p + 328) = 1024; /* maxThreadsDim */
  *(int *)(p + 332) = 64;
  *(int *)(p + 336) = 2147483647;               /* maxGridSize */
  *(int *)(p + 340) = *(int *)(p + 344) = 65535;
  *(size_t *)(p + 352) = 65536;                 /* totalConstMem */
  *(int *)(p + 360) = sm / 10;                  /* major */
  *(int *)(p + 364) = sm % 10;                  /* minor */
  *(int *)(p + 384) = multiprocessors();
  *(int *)(p + 560) = 1;
  *(int *)(p + 596) = 50 << 20;                 /* l2CacheSize */
  *(int *)(p + 604) = 2048;                     /* maxThreadsPerMultiProcessor */
  *(size_t *)(p + 624) = shared_memory() + 1024;
  *(int *)(p + 632) = 65536;
  *(size_t *)(p + 672) = shared_memory();       /* sharedMemPerBlockOptin */
  *(int *)(p + 688) = 32;
  *(int *)(p + 720) = 1;
  return 0;
}
int cudaGetDeviceProperties_v2(char *p, int device) { return cudaGetDeviceProperties(p, device); }

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
    case 1: *value = 1024; break;             /* threads of a block */
    case 5: *value = 2147483647; break;       /* grid */
    case 6: case 7: *value = 65535; break;
    case 8: *value = 48 << 10; break;         /* shared memory of a block */
    case 10: *value = 32; break;              /* warp */
    case 12: *value = 65536; break;           /* registers */
    case 16: *value = multiprocessors(); break;
    case 39: *value = 2048; break;            /* threads of a multiprocessor */
    case 75: *value = sm / 10; break;
    case 76: *value = sm % 10; break;
    case 81: *value = shared_memory() + 1024; break;
    case 97: *value = shared_memory(); break;
    case 115: *value = 1; break;              /* memory pools */
    default: *value = 0;
  }
  return 0;
}

/* ---- memory ---- */

static struct { char *begin; size_t size; int on_device; } blocks[1 << 16];
static int n_blocks;
static size_t held, most; /* bytes of the device */

static int is_on_device(const void *pointer) {
  const char *p = pointer;
  int found = 0;
  pthread_mutex_lock(&lock);
  for (int i = n_blocks - 1; i >= 0 && !found; i--)
    if (p >= blocks[i].begin && p < blocks[i].begin + blocks[i].size) found = 1 + blocks[i].on_device;
  pthread_mutex_unlock(&lock);
  return found == 2;
}

static int take(void **pointer, size_t size, int on_device) {
  size_t whole = size ? (size + 4095) & ~4095ul : 4096;
  void *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return 2; /* cudaErrorMemoryAllocation */
  pthread_mutex_lock(&lock);
  blocks[n_blocks].begin = p;
  blocks[n_blocks].size = whole;
  blocks[n_blocks++].on_device = on_device;
  if (on_device && (held += whole) > most) most = held;
  pthread_mutex_unlock(&lock);
  *pointer = p;
  return 0;
}

int cudaFree(void *pointer) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < n_blocks; i++)
    if (blocks[i].begin == pointer) {
      if (blocks[i].on_device) held -= blocks[i].size;
      munmap(pointer, blocks[i].size);
      blocks[i] = blocks[--n_blocks];
      break;
    }
  pthread_mutex_unlock(&lock);
  return 0;
}

size_t dry_run_most_memory(void) { return most; }
int cudaMalloc(void **p, size_t size) { return take(p, size, 1); }
int cudaMallocAsync(void **p, size_t size, void *stream) { return take(p, size, 1); }
int cudaMallocFromPoolAsync(void **p, size_t size, void *pool, void *stream) { return take(p, size, 1); }
int cudaMallocHost(void **p, size_t size) { return take(p, size, 0); }
int cudaHostAlloc(void **p, size_t size, unsigned flags) { return take(p, size, 0); }
int cudaFreeAsync(void *p, void *stream) { return cudaFree(p); }
int cudaFreeHost(void *p) { return cudaFree(p); }

static int copy(void *to, const void *from, size_t size, int kind) {
  static const char *names[] = {"host-to-host", "host-to-device", "device-to-host", "device-to-device"};
  if (kind == BY_ADDRESS) kind = 2 * is_on_device(from) + is_on_device(to);
  if (kind != DEVICE_TO_DEVICE) memcpy(to, from, size);
  dry_run_log("copy %s %zu", names[kind], size);
  return 0;
}
int cudaMemcpy(void *to, const void *from, size_t size, int kind) { return copy(to, from, size, kind); }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  return copy(to, from, size, kind);
}
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                      size_t height, int kind, void *stream) {
  dry_run_log("copy 2d %zu", width * height);
  return 0;
}
int cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t offset, int kind) {
  memset(to, 0, size);
  return 0;
}
int cudaMemset(void *p, int value, size_t size) { dry_run_log("memset %zu", size); return 0; }
int cudaMemsetAsync(void *p, int value, size_t size, void *stream) { return cudaMemset(p, value, size); }

/* ---- waits, streams and events ---- */

int cudaDeviceSynchronize(void) { dry_run_log("wait device"); return 0; }
int cudaStreamSynchronize(void *stream) { dry_run_log("wait stream"); return 0; }
int cudaEventSynchronize(void *event) { dry_run_log("wait event"); return 0; }

static int handle(void **p) {
  static long next = 0x1000;
  *p = (void *)(next += 16);
  return 0;
}
int cudaStreamCreate(void **p) { return handle(p); }
int cudaStreamCreateWithFlags(void **p, unsigned flags) { return handle(p); }
int cudaStreamCreateWithPriority(void **p, unsigned flags, int priority) { return handle(p); }
int cudaEventCreate(void **p) { return handle(p); }
int cudaEventCreateWithFlags(void **p, unsigned flags) { return handle(p); }
int cudaMemPoolCreate(void **p, const void *properties) { return handle(p); }
int cudaStreamEndCapture(void *stream, void **p) { return handle(p); }
int cudaGraphInstantiate(void **p, void *graph, unsigned long flags) { return handle(p); }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cudaEventElapsedTime(float *ms, void *begin, void *end) { *ms = 1; return 0; }
int cudaMemPoolGetAttribute(void *pool, int attribute, uint64_t *value) { *value = 0; return 0; }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) { function(data); return 0; }
int cudaGetDriverEntryPoint(const char *name, void **f, unsigned long flags, int *status) {
  *f = NULL;
  if (status) *status = 1; /* not found */
  return 0;
}
int cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned version, unsigned long flags,
                                     int *status) {
  return cudaGetDriverEntryPoint(name, f, flags, status);
}
const char *cudaGetErrorName(int error) { return "dry run"; }
const char *cudaGetErrorString(int error) { return "dry run"; }

/* ---- kernels ---- */

static struct { const void *function; const char *name; } *kernels;
static int n_kernels, room;

void **__cudaRegisterFatBinary(void *image) {
  static void *handles[8192];
  static int n;
  return &handles[n++ & 8191];
}
void __cudaRegisterFatBinaryEnd(void **image) {}
void __cudaUnregisterFatBinary(void **image) {}
void __cudaRegisterVar(void **image, char *host, char *device, const char *name, int external,
                       size_t size, int constant, int global) {}
void __cudaRegisterFunction(void **image, const char *function, char *device, const char *name, int limit,
                            void *tid, void *bid, void *block, void *grid, int *warp) {
  if (n_kernels == room) kernels = realloc(kernels, (room = room ? 2 * room : 4096) * sizeof *kernels);
  kernels[n_kernels].function = function;
  kernels[n_kernels++].name = name;
}
int __cudaGetKernel(void **kernel, const void *function) { *kernel = (void *)function; return 0; }

static __thread struct { dim3 grid, block; size_t shared; void *stream; } calls[16];
static __thread int n_calls;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  calls[n_calls].grid = grid;
  calls[n_calls].block = block;
  calls[n_calls].shared = shared;
  calls[n_calls++].stream = stream;
  return 0;
}
int __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void **stream) {
  n_calls--;
  *grid = calls[n_calls].grid;
  *block = calls[n_calls].block;
  *shared = calls[n_calls].shared;
  *stream = calls[n_calls].stream;
  return 0;
}

static int launch(const void *function) {
  const char *name = "unknown";
  for (int i = 0; i < n_kernels; i++)
    if (kernels[i].function == function) name = kernels[i].name;
  dry_run_log("launch %s", name);
  return 0;
}
int __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, void *stream) {
  return launch(kernel);
}
int cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, void *stream) {
  return launch(function);
}
int cudaLaunchKernelExC(const void *configuration, const void *function, void **arguments) {
  return launch(function);
}
int cudaFuncGetAttributes(char *p, const void *function) {
  memset(p, 0, 144);
  *(int *)(p + 24) = 1024;                   /* maxThreadsPerBlock */
  *(int *)(p + 28) = 64;                     /* numRegs */
  *(int *)(p + 32) = *(int *)(p + 36) = sm;  /* ptxVersion, binaryVersion */
  *(int *)(p + 44) = shared_memory();        /* maxDynamicSharedSizeBytes */
  return 0;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *f, int block, size_t shared) {
  *n = 2;
  return 0;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int block, size_t shared,
                                                           unsigned flags) {
  *n = 2;
  return 0;
}
