"""How fast the lab trains: relative to one run alone, to PyTorch, and to the machine's own matrix products.

python -m tests.benchmarks [--quick | --gpu] [--json FILE] [--torch_python PYTHON]
"""
