"""A library is imported without modules that this process never uses."""

from __future__ import annotations

import subprocess
import sys

from tests.sandbox import ROOT


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_modules_left_out_of_a_library_can_be_imported_afterwards() -> None:
    modules = "asyncio, rich.console, urllib.request"
    names = "asyncio.run, rich.console.Console, urllib.request.urlopen"
    assert run(f"import daemon.system.logs, daemon.mqtt, {modules}; print({names})")


def test_a_module_that_is_loaded_already_is_not_hidden() -> None:
    program = (
        "import sys, urllib.request as real\nfrom daemon.system.imports import without\n"
        "with without('urllib.request'):\n    import urllib.request as found\n"
        "print(found is real and sys.modules['urllib.request'] is real)"
    )
    assert run(program) == "True"


def test_paho_can_still_look_for_a_proxy_where_pysocks_is_installed() -> None:
    program = (
        "import sys, types\nfrom importlib.machinery import ModuleSpec\n"
        "sys.modules['socks'] = types.ModuleType('socks')\n"
        "sys.modules['socks'].__spec__ = ModuleSpec('socks', None)\n"
        "import daemon.mqtt, urllib\nprint(hasattr(urllib, 'request'))"
    )
    assert run(program) == "True"
