"""A product in one loop over tiles and columns, and the same with a branch that redefines the accumulator, compiled for sm_90.

Prints of each how many groups of products are in flight while the main loop waits.
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from benchmarks.kernels.ahead import recorded
from benchmarks.kernels.cubin import measure


@triton.jit
def product_kernel(
    left, right, result, tiles, H: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, BRANCH: tl.constexpr
):
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        for start in range(0, H, DEPTH):
            total = tl.dot(left.load([tile * ROWS, start]), right.load([0, start]).T, total)
        if BRANCH:  # noqa: SIM102 (a constant, by itself: Triton then compiles only what follows)
            if tile % 2 == 0:
                total = total * 2
        result.store([tile * ROWS, 0], total.to(tl.bfloat16))


def main() -> None:
    tiles, rows, columns, depth, size = 1024, 128, 256, 64, 2560
    matrices = (torch.empty(shape, dtype=torch.bfloat16, device="meta") for shape in ((tiles * rows, size), (columns, size)))
    left, right = (TensorDescriptor.from_tensor(matrix, [block, depth]) for matrix, block in zip(matrices, (rows, columns), strict=True))
    result = TensorDescriptor.from_tensor(torch.empty(tiles * rows, columns, dtype=torch.bfloat16, device="meta"), [rows, columns])
    for branch in (False, True):
        with recorded("sm_90") as launches:
            product_kernel[(132,)](
                left, right, result, tiles, H=size, ROWS=rows, COLUMNS=columns, DEPTH=depth, BRANCH=branch, num_warps=8, num_stages=3
            )
        print(measure(launches[0], "", "sm_90").in_flight)


if __name__ == "__main__":
    main()
