"""Passes over fixed shapes as CUDA graphs: a small scene takes longer to launch, kernel by kernel, than to compute."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

# What graphs give back: a tensor, None, or (named) tuples of such.
Output: TypeAlias = Any
_Key: TypeAlias = tuple[tuple[torch.Size, torch.dtype, torch.device], ...]

_log = logging.getLogger(__name__)


@runtime_checkable
class Graph(Protocol):
    """A recorded pass, which reads `inputs` and writes `output` wherever these were when it was recorded."""

    inputs: tuple[Tensor, ...]
    output: Output

    def replay(self) -> None:
        """Compute `output` anew."""


class GraphedPass:
    """A function of tensors that records itself for each set of shapes, and is then launched as a whole.

    The function must be pure, must not look at values (whatever waits for the device cannot be recorded), and every
    tensor beside its arguments, such as a parameter, has to stay in its place: `forget` what is recorded after moving a
    model. At most `most_graphs` are kept, the least recently used go first; all use one pool of memory. Where nothing
    can be recorded (`why_not`, or the attempt failed) the function runs as it is, and one line in the log says why.
    """

    def __init__(
        self,
        function: Callable[..., Output],
        most_graphs: int = 4,
        record: Callable[[Callable[..., Output], tuple[Tensor, ...]], Graph] | None = None,
    ) -> None:
        assert most_graphs >= 1
        self.function = function
        self.most_graphs = most_graphs
        self._record = record or _Recorder()
        self._graphs: OrderedDict[_Key, Graph] = OrderedDict()
        self._reasons: dict[_Key, str] = {}
        self._said: set[str] = set()

    def __call__(self, *inputs: Tensor) -> Output:
        """Return what the function returns, in tensors of the caller's own."""
        key = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        reason = why_not(inputs) or self._reasons.get(key)
        graph = None if reason else self._graph(key, inputs)
        if graph is None:
            self._say_once(reason or self._reasons[key])
            return self.function(*inputs)
        self._graphs.move_to_end(key)
        for place, tensor in zip(graph.inputs, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        # The next replay writes over what this one gave.
        return _copied(graph.output)

    def forget(self) -> None:
        """Drop everything that is recorded, and with it the memory that it holds."""
        self._graphs.clear()
        self._reasons.clear()

    @property
    def num_graphs(self) -> int:
        """Passes that are recorded."""
        return len(self._graphs)

    def _graph(self, key: _Key, inputs: tuple[Tensor, ...]) -> Graph | None:
        """Return the graph for such inputs, recorded now if need be; None, and why in `_reasons`, if that fails."""
        if key not in self._graphs:
            if len(self._graphs) == self.most_graphs:
                self._graphs.popitem(last=False)
            try:
                self._graphs[key] = self._record(self.function, inputs)
            except RuntimeError as error:
                self._reasons[key] = f"recording fails: {(str(error).strip().splitlines() or ['no reason'])[0]}"
        return self._graphs.get(key)

    def _say_once(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            _log.info("no CUDA graph: %s", reason)


def why_not(inputs: tuple[Tensor, ...]) -> str:
    """Return why a pass over these inputs is not recorded; "" where it can be."""
    elsewhere = {tensor.device.type for tensor in inputs} - {"cuda"}
    if elsewhere or not inputs:
        return f"tensors are on {', '.join(sorted(elsewhere)) or 'no device'}"
    if torch.is_grad_enabled():
        return "gradients are taken"
    return "another graph is being recorded" if torch.cuda.is_current_stream_capturing() else ""


def _copied(output: Output) -> Output:
    if isinstance(output, tuple):
        parts = [_copied(part) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else tuple(parts)
    assert output is None or isinstance(output, Tensor), f"a graph cannot give back {type(output).__name__}"
    return None if output is None else output.clone()


class _Recorder:
    """Records on a CUDA device; what it records shares one pool of memory, as no two replays run at once."""

    # Lazily compiled kernels, workspaces and the choice of algorithms are done with after so many passes.
    WARM_UP = 3

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Callable[..., Output], inputs: tuple[Tensor, ...]) -> Graph:
        device = inputs[0].device
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # Made in inference mode they could not be written to outside it.
        with torch.inference_mode(False):
            places = tuple(torch.empty_like(tensor).copy_(tensor) for tensor in inputs)
        with torch.cuda.device(device):
            aside = torch.cuda.Stream(device)
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                for _ in range(self.WARM_UP):
                    function(*places)
            torch.cuda.current_stream(device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                output = function(*places)
        return _CudaGraph(graph, places, output)


class _CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, inputs: tuple[Tensor, ...], output: Output) -> None:
        self.graph, self.inputs, self.output = graph, inputs, output

    def replay(self) -> None:
        self.graph.replay()
