"""Runs batches through graphs on the stand-ins; started by `drive.dry_run`.

    python child.py JOB.json     with the wheel on PYTHONPATH and the stand-ins on LD_LIBRARY_PATH

Standard error holds ONNX Runtime's own account of where it puts each node, and the file that
DRY_RUN_LOG names holds what the stand-ins were asked; marks in both tell sessions and runs apart.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main() -> None:
    """Run the job: one session per graph and compute capability, in it one run per batch."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(os.environ["LD_LIBRARY_PATH"].split(":")[0])
    runtime = next(p for p in folder.glob("libcudart.so.*") if p.suffix[1:].isdecimal())
    stand_in = ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
    stand_in.dry_run_most_memory.restype = ctypes.c_size_t
    batches = np.load(job["batches"])
    found = []
    for graph in job["graphs"]:
        for capability in job["capabilities"]:
            stand_in.dry_run_claim(capability)
            stand_in.dry_run_mark(f"session {graph} {capability}".encode())
            print(f"#session {graph} {capability}", file=sys.stderr, flush=True)
            session = open_session(graph, job["options"])
            errors = {}
            for name, ids in batches.items():
                stand_in.dry_run_mark(f"run {name}".encode())
                try:
                    session.run(None, {"input_ids": ids})
                except Exception as error:  # noqa: BLE001 the runtime raises many kinds
                    errors[name] = str(error)[:1500]
            stand_in.dry_run_mark(b"end")
            found.append({"graph": graph, "capability": capability, "errors": errors})
            found[-1]["providers"] = session.get_providers()
            del session
    most = stand_in.dry_run_most_memory()
    report = {"version": onnxruntime.__version__, "sessions": found, "most_memory": most}
    Path(job["report"]).write_text(json.dumps(report))


def open_session(graph: str, options: dict[str, str]) -> onnxruntime.InferenceSession:
    """A session on the CUDA provider that logs its choices, and saves the graph with its copies."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 0
    settings.intra_op_num_threads = 1
    settings.optimized_model_filepath = f"{graph}.placed"
    settings.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", f"{Path(graph).name}.data"
    )
    settings.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", "128"
    )
    providers = [("CUDAExecutionProvider", options), "CPUExecutionProvider"]
    return onnxruntime.InferenceSession(graph, settings, providers=providers)


if __name__ == "__main__":
    main()
