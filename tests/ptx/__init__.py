"""Executes the compiled kernels on the CPU: an emulator of the PTX that Triton emits.

`compile.compile_kernel` compiles for a GPU that need not be there, `launch.launch`
executes a grid with NumPy, checks every access and counts, `emulated_ops.EmulatedOps`
runs `gn_det.ops` on CPU tensors through both. Compiling needs a process without
TRITON_INTERPRET.
"""
