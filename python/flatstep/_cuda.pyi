from collections.abc import Sequence

version: str
architectures: str
backend: object

def devices() -> list[tuple[str, tuple[int, int]]]: ...

# Absent where it was built without the headers of jaxlib.
xla_handler: object

def xla_workspace_bytes(
    rule: str, written: str, grad: str, state: Sequence[str], counts: Sequence[int], entries: int
) -> int: ...
