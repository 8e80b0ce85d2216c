"""How fast the lab trains: against one run alone, against PyTorch, against the machine's own matrix products.

python -m tests.benchmarks [--quick | --gpu] [--json FILE] [--torch_python PYTHON]
"""
