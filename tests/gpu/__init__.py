"""What the lab does on a GPU, in minutes: correctness, speed, and Figure 1 in the remaining time.

python -m tests.gpu --out DIR [--quick] [--minutes 9] [--data_dir DIR]
"""
