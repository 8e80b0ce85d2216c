"""What the lab does on a GPU, in minutes: is it right, how fast is it, and Figure 1 with the time that is left.

python -m tests.gpu --out DIR [--quick] [--minutes 9] [--data_dir DIR]
"""
