"""What a component does not need it does not import."""

import subprocess
import sys

import pytest

LOOK = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def imported_by(package):
    run = subprocess.run([sys.executable, "-c", LOOK, package], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("package", ["clipdrift_contract", "clipdrift_serving", "clipdrift_monitor"])
def test_serving_and_monitor_import_without_torch(package):
    found = imported_by(package)
    assert package in found
    assert not found & {"torch", "mlflow", "clipdrift_trainer"}


def test_the_contract_needs_neither_a_server_nor_a_store():
    assert not imported_by("clipdrift_contract") & {"onnxruntime", "sqlalchemy", "uvicorn", "pandas", "evidently"}


def test_an_embedded_bus_is_opened_without_a_kafka_client(tmp_path):
    code = f"""
import sys
from clipdrift_contract.bus.connect import connect
connect("sqlite:///{tmp_path}/bus.sqlite").close()
assert "kafka" not in sys.modules, "kafka was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
