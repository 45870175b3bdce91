version: str
architectures: str
maker: object

def devices() -> list[tuple[str, tuple[int, int]]]: ...
