"""The fewest bytes a call can move: the model behind every GB/s and every limit.

One unit is one pass over one tensor of the layer's size. What an implementation moves
beyond the model (a second read of x, fp32 temporaries) makes it slower, not better:
GB/s here are useful bytes over time.
"""

from benchmarks.shapes import SHAPES

DIRECTIONS = ('fwd', 'bwd', 'fwd_bwd')


def units(direction: str, kind: str, itemsize: int) -> float:
    """Passes over a map of `itemsize` bytes an element, for 'plain', 'relu', ….

    Forward reads x (and the residual) and writes y. Backward reads x and dy and writes
    dx; after residual and ReLU it also writes dresidual and reads the ReLU's mask, at
    best one bit an element. Weight, bias and statistics are too small to count.
    """
    residual = kind == 'residual_relu'
    forward = 3.0 if residual else 2.0
    backward = 4.0 + 1 / (8 * itemsize) if residual else 3.0
    return {'fwd': forward, 'bwd': backward, 'fwd_bwd': forward + backward}[direction]


def moved_bytes(direction: str, kind: str, elements: int, itemsize: int) -> int:
    """Bytes that a call on a map of `elements` has to read and write."""
    return round(units(direction, kind, itemsize) * elements * itemsize)


def gbps(nbytes: float, ms: float) -> float:
    """GB/s, with GB = 1e9 bytes."""
    return nbytes / ms * 1e-6


def network_layers(model: str) -> int:
    """Norm layers of one forward pass of 'r50' or 'r101'."""
    return sum(shape.calls(model) for shape in SHAPES)


def network_elements(model: str) -> int:
    """Elements that pass through a norm in one forward pass."""
    return sum(shape.calls(model) * shape.elements for shape in SHAPES)


def network_floor_ms(
    model: str, direction: str, itemsize: int, bytes_per_second: float
) -> float:
    """Time of the norms alone (residuals not counted) at a given copy speed."""
    passes = units(direction, 'plain', itemsize)
    return network_elements(model) * itemsize * passes / bytes_per_second * 1e3
