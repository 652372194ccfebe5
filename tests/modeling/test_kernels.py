"""The kernels compiled for GPUs that are not here; what they compute is tested in test_head.py."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Compiles both kernels outside of the interpreter, and says of each: bytes of shared memory, bytes of a thread's stack
# (where values go for which it has no register), and whether it multiplies on tensor cores.
COMPILE = r"""
import json, re, subprocess, sys
import triton, triton.language as tl
from pathlib import Path
from triton.backends.compiler import GPUTarget
from milco.modeling.kernels import DEPTH, TERMS, TOKENS, WARPS, _best_kernel, _multiply_kernel

capability, kind, size = int(sys.argv[1]), *{"bf16": ("*bf16", 2), "fp32": ("*fp32", 4)}[sys.argv[2]]
kinds = dict.fromkeys(["hidden", "weight", "pooled", "values", "dense", "out"], kind)
kinds |= {"mask": "*i8", "winners": "*i32", "indptr": "*i64", "columns": "*i64"}

def needs(kernel, warps, **constants):
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in kernel.arg_names}
    aligned = [place for place, name in enumerate(signature) if name in kinds or name == "width"]  # all models' are
    attributes = {(place,): [["tt.divisibility", 16]] for place in aligned}
    source = triton.compiler.ASTSource(kernel, signature, constants, attributes)
    made = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": warps})
    Path("kernel.cubin").write_bytes(made.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    told = subprocess.run([tool, "-res-usage", "kernel.cubin"], capture_output=True, text=True, check=True)
    (stack,) = re.findall(r"STACK:(\d+)", told.stdout + told.stderr)
    return {"shared": made.metadata.shared, "stack": int(stack), "tensor cores": "mma" in made.asm["ptx"]}

tile = {"TOKENS": TOKENS, "TERMS": TERMS, "DEPTH": DEPTH // size, "PRECISION": "ieee", "KEEP": True}
best = needs(_best_kernel, WARPS, **tile, SUM=tl.float32)
print(json.dumps([best, needs(_multiply_kernel, 4, DEPTH=1024, SUM=tl.float32)]))
"""
SHARED = 99 * 1024  # of the smallest GPUs since Ampere


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", ["bf16", "fp32"])
def test_the_kernels_compile_and_keep_their_tiles_in_registers(tmp_path, capability, kind):
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(capability), kind], cwd=tmp_path, capture_output=True, text=True,
        env={**variables, "TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    best, multiply = json.loads(done.stdout)
    assert best["tensor cores"] == (kind == "bf16")
    assert best["shared"] <= SHARED and best["stack"] <= 16, best
    assert multiply["stack"] == 0
