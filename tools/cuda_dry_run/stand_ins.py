"""Libraries that take the place of NVIDIA's, compiled from what an ONNX Runtime wheel asks for.

`cudart.c` is the runtime. Of the others (cuBLAS, cuDNN, ...) only a few functions need an answer
of their own; the rest is generated, one function per symbol that the wheel leaves undefined.
"""

import collections
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
# functions with "Create" in their names give a handle, all others succeed, except for these
ANSWERS = {
    "cublasGemmEx": "(void*h,int a,int b,int m,int n,int k)"
    '{dry_run_log("product %d x %d x %d",n,m,k);return 0;}',
    "cublasSgemm_v2": "(void*h,int a,int b,int m,int n,int k)"
    '{dry_run_log("product %d x %d x %d in float32",n,m,k);return 0;}',
    "cublasGemmStridedBatchedEx": "(void*h,int a,int b,int m,int n,int k)"
    '{dry_run_log("product %d x %d x %d, many",n,m,k);return 0;}',
    "cublasSgemmStridedBatched": "(void*h,int a,int b,int m,int n,int k)"
    '{dry_run_log("product %d x %d x %d, many",n,m,k);return 0;}',
    "cublasLtMatmul": '(){dry_run_log("product of cublasLt");return 0;}',
    "cudnnReduceTensor": '(){dry_run_log("launch cudnn reduce");return 0;}',
    # one algorithm, whose 96 bytes are read
    "cublasLtMatmulAlgoGetHeuristic": "(void*a,void*b,void*c,void*d,void*e,void*f,void*g,int n,"
    "void*r,int*found){*found=1;memset(r,0,96);return 0;}",
    "cudnnBackendCreateDescriptor": "(int kind,void**p)"
    "{static long h=16;*p=(void*)(h+=16);return 0;}",
    "cudnnGetReductionWorkspaceSize": "(void*a,void*b,void*c,void*d,size_t*s){*s=1024;return 0;}",
    "cudnnGetReductionIndicesSize": "(void*a,void*b,void*c,void*d,size_t*s){*s=1024;return 0;}",
}
TEXTS = ("cudnnGetErrorString", "cublasGetStatusString", "cublasGetStatusName")
HEAD = "#include <string.h>\nvoid dry_run_log(const char *, ...);"


def build(runtime: Path, folder: Path) -> None:
    """Compile the stand-ins of a wheel into a folder, unless they are there already.

    Args:
        runtime: where the wheel was unpacked, the folder that holds `onnxruntime`.
        folder: gets one library for each of NVIDIA's.

    Raises:
        RuntimeError: gcc or readelf is missing.
    """
    for tool in ("gcc", "readelf"):
        if not shutil.which(tool):
            raise RuntimeError(f"the dry run needs {tool} to compile its stand-ins; install it")
    done = folder / "complete"
    newest = max(path.stat().st_mtime for path in (HERE / "cudart.c", Path(__file__)))
    if done.exists() and done.stat().st_mtime > newest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    libraries = sorted((runtime / "onnxruntime" / "capi").glob("libonnxruntime_providers_*.so"))
    wanted, loose = _wanted(libraries)
    for library, symbols in wanted.items():
        code = _code(library, symbols, loose)
        _compile(code, folder / library, versioned=library != "libcuda.so.1")
    done.touch()


def _wanted(libraries: list[Path]) -> tuple[dict[str, set[str]], set[str]]:
    """Symbols with a version, by NVIDIA library; and symbols without one."""
    symbols: dict[str, set[str]] = collections.defaultdict(set)
    symbols["libcuda.so.1"] = set()  # the driver's symbols have no version
    symbols["libcudnn.so.9"] = set()  # from 1.31 on they are looked up by name at run time
    loose = set()
    for path in libraries:
        for name in re.findall(r" UND (\S+)", _read(path, "--dyn-syms")):
            symbol, _, library = name.partition("@")
            if library.startswith(("libcu", "libnv")):
                symbols[library.strip("@")].add(symbol)
            elif not library:
                loose.add(symbol)
        by_name = re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", path.read_bytes())
        symbols["libcudnn.so.9"].update(name.decode() for name in by_name)
        for library in re.findall(r"\[(lib(?:cu|nv)\S+)\]", _read(path, "-d")):
            symbols[library].update()
    return symbols, loose


def _read(path: Path, flag: str) -> str:
    done = subprocess.run(["readelf", "-W", flag, path], capture_output=True, text=True, check=True)
    return done.stdout


def _code(library: str, symbols: set[str], loose: set[str]) -> str:
    if library.startswith("libcudart"):
        runtime = (HERE / "cudart.c").read_text()
        missing = symbols - set(re.findall(r"\b(\w+)\(", runtime))
        return "\n".join([runtime, *map(_function, sorted(missing))])
    if library == "libcuda.so.1":
        symbols = {name for name in loose if re.match(r"(cu|nvrtc|cudnn|curand|cufft)[A-Z]", name)}
    elif library.startswith(("libnvinfer", "libnvonnx")):  # TensorRT, which is not used
        symbols |= {n for n in loose if re.match(r"create\w+_INTERNAL|get(Infer|PluginReg)", n)}
    return "\n".join([HEAD, *map(_function, sorted(symbols))])


def _function(symbol: str) -> str:
    if symbol in ANSWERS:
        return f"int {symbol}{ANSWERS[symbol]}"
    if symbol in TEXTS:
        return f'const char *{symbol}(int e){{return "dry run";}}'
    if symbol == "cudnnGetVersion":
        return f"size_t {symbol}(){{return 91400;}}"
    if "Create" in symbol:
        return f"int {symbol}(void**p){{static long h=16;*p=(void*)(h+=16);return 0;}}"
    return f"long {symbol}(){{return 0;}}"


def _compile(code: str, target: Path, *, versioned: bool) -> None:
    source, versions = target.with_suffix(".c"), target.with_suffix(".map")
    source.write_text(code + "\n")
    versions.write_text(f"{target.name} {{ global: *; }};\n")
    flags = [f"-Wl,--version-script={versions}"] if versioned else []
    subprocess.run(
        [
            "gcc",
            "-w",
            "-O1",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{target.name}",
            *flags,
            "-Wl,--unresolved-symbols=ignore-all",
            "-o",
            target,
            source,
        ],
        check=True,
    )
