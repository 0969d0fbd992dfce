from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from lookup import add_model, free_ports
from onnx import helper

from reward_serve.server import TritonServer


def edit(config: Path, *changes: tuple[str, str]) -> None:
    text = config.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)


def add_echo(repository: Path) -> None:
    """Add a model that answers with the strings that it is sent."""
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.STRING, ["batch", "n"])
        for name in "xy"
    )
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "echo", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = add_model(repository, "echo")
    onnx.save(model, folder / "1" / "model.onnx")
    edit(folder / "config.pbtxt", ("TYPE_INT64", "TYPE_STRING"))


@pytest.fixture(scope="module")
def lookup_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A verbose server of `lookup` with batches, `flat` without them, and `echo` for strings."""
    repository = tmp_path_factory.mktemp("lookup")
    lookup = add_model(repository, "lookup")
    edit(lookup / "config.pbtxt", ("KIND_CPU", "KIND_AUTO"))
    flat = add_model(repository, "flat")
    edit(
        flat / "config.pbtxt",
        ("max_batch_size: 64", "max_batch_size: 0"),
        ("dims: [ -1 ]", "dims: [ -1, -1 ]"),
        ("dynamic_batching { max_queue_delay_microseconds: 200000 }", ""),
    )
    add_echo(repository)
    with TritonServer(free_ports(repository, "--log-verbose=1")) as server:
        yield server
