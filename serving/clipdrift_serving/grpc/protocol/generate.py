"""Compiles `inference.proto` into `described.py`: python -m clipdrift_serving.grpc.protocol.generate (needs grpcio-tools)."""

import tempfile
from base64 import b85encode
from pathlib import Path
from textwrap import wrap

_HERE = Path(__file__).parent


def described() -> str:
    """The text of `described.py`.

    Raises:
        ValueError: protoc refuses the file.
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]  # noqa: PLC0415  of developers; serving runs without it

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        if protoc.main(["protoc", f"-I{_HERE}", f"--descriptor_set_out={out}", "inference.proto"]):
            raise ValueError(f"protoc refuses {_HERE / 'inference.proto'}")
        lines = wrap(b85encode(out.read_bytes()).decode(), 116, break_on_hyphens=False)
    text = "\n".join(f'    "{line}"' for line in lines)
    return f'"""Generated from inference.proto by generate.py: a FileDescriptorSet in base 85."""\n\nDESCRIBED = (\n{text}\n)\n'


if __name__ == "__main__":
    (_HERE / "described.py").write_text(described())
