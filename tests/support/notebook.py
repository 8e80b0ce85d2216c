"""Runs the notebook and stores its outputs in its file.

python -m tests.support.notebook
"""

import tempfile
from pathlib import Path

import nbclient
import nbformat

PATH = Path(__file__).parents[2] / "analysis/plasticity.ipynb"


def run(notebook: nbformat.NotebookNode, directory: Path) -> None:
    """Runs all cells in a directory and stores their outputs.

    Raises:
      CellExecutionError: what a cell raises.
    """
    resources = {"metadata": {"path": str(directory)}}
    nbclient.NotebookClient(notebook, timeout=1200, record_timing=False, resources=resources).execute()


def main() -> None:
    notebook = nbformat.read(PATH, as_version=4)
    metadata = notebook.metadata.copy()
    with tempfile.TemporaryDirectory() as directory:
        run(notebook, Path(directory))
    notebook.metadata = metadata  # without the versions of this kernel
    nbformat.write(notebook, PATH)


if __name__ == "__main__":
    main()
