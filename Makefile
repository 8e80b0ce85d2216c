# make demo        a small study and its learning curves, in a few minutes on a laptop
# make test        before every commit: lint, types and the quick tests, in three minutes (five the first time)
# make test_slow   before a change lands: the tests that take seconds, most of which train a whole study
# make test_long   every night: everything, compiled as for users; campaigns, sweeps, benchmarks, many processes and devices
# make test_aot    compile all programs for TPUs and GPUs that are not attached: a download of 400 MB, then minutes
# make test-slurm  the tests on a real SLURM, installed or started for them: half an hour
# make bench       measure the training speed in six minutes; runs/bench.json; TORCH=PYTHON names a Python with PyTorch
# make gpu         check and measure the GPU of this machine in nine minutes: runs/gpu/gpu.json; tests/gpu/README.md
# make wheels      collect in .wheels what a GPU machine without network needs; EXTRAS=analysis,cuda12 for one without JAX
# make results     train a published study again and compare: STUDY=multistage, or all, in hours; RESULTS names the folder
# make faults      inject hundreds of kills, full disks and damaged files; is anything lost? ten to twenty minutes
# make mutants     mutation tests: does a test catch each deliberate mistake? half an hour; ONLY=WORD selects some
# make notebook    run analysis/plasticity.ipynb and save its outputs in it
# make clean       remove the environment, caches and the demo's results
#
# PYTHON=python3.12 selects the interpreter, VENV=.venv-other the environment, WORKERS=8 the number of test processes (each
# takes up to 4 GB).

VENV = .venv
WORKERS = 2
RUN = $(VENV)/bin/python
GPU_PYTHON = python3# for `make gpu`: an interpreter that has JAX for the GPU
EXTRAS = analysis
AOT = .venv-aot# the packages of VENV and the compilers, with which jax would search for accelerators
export PYTHONDONTWRITEBYTECODE = # empty: otherwise each of a hundred processes compiles all modules again
PYTEST = $(RUN) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
INSTALL = $(RUN) -m pip install -qq --disable-pip-version-check -c constraints.txt
CANDIDATES = $(or $(PYTHON),python3 python3.12 python3.11 python3.13 python3.14)
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))

.PHONY: help demo test lint tests cheap exact test_slow test_long test_aot test-slurm bench gpu wheels faults mutants notebook clean results

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/.demo
	@$(RUN) -m plasticity_jax.main --config=configs/multistage.py:digits --workdir=runs/demo
	@$(RUN) -m analysis.figures runs/demo --out runs/demo/figures

test: $(VENV)/.test
	@$(MAKE) --no-print-directory -j 3 lint cheap exact

lint: $(VENV)/.test .cache/types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

# A copy of the package layout of a wheel, made of links; used only by mypy.
.cache/types:
	@mkdir -p $@/plasticity_jax
	@ln -sfn ../../../analysis ../../../configs ../../../launch $@/plasticity_jax

# Two groups, since XLA's flags apply to a whole process; see tests/conftest.py.  They run in parallel, so that each uses
# the idle times of the other.
tests: $(VENV)/.test
	@$(MAKE) --no-print-directory -j 2 cheap exact

cheap: $(VENV)/.test
	@$(PYTEST) --cheap -m "not exact and not slow and not long"

exact: $(VENV)/.test
	@$(RUN) -m pytest -q -m "exact and not slow and not long" $$(grep -rl --include='test_*.py' mark.exact tests)

test_slow: $(VENV)/.test
	@$(PYTEST) --cheap -m "slow and not exact and not long"

test_long: $(VENV)/.test
	@$(PYTEST)

# This needs only a CPU, so jax must not search for accelerators.  Each device has its own process, whose cases share
# compiled programs; the longest starts first, and the last one runs all remaining tests.
test_aot: $(AOT)/.done
	@printf '%s\n' '[v5e:1x1] and not precision' '[v5e:2x4]' '[h100:4]' '[h100]' '[v5e:1x1] and precision' \
	    'not [v5e:1x1] and not [v5e:2x4] and not [h100] and not [h100:4]' | JAX_PLATFORMS=cpu \
	    xargs -P $(WORKERS) -I{} $(AOT)/bin/python -m pytest -q -p no:xdist -m aot -k {} tests/aot

test-slurm: $(VENV)/.test
	@sh tests/slurm/up.sh
	@$(RUN) -m pytest -q -m slurm tests/slurm

bench: $(VENV)/.demo
	@mkdir -p runs
	@$(RUN) -m tests.benchmarks --json runs/bench.json $(if $(TORCH),--torch_python $(TORCH))

# Nothing is installed: a GPU machine has its own JAX, and may have no network.
gpu:
	@$(GPU_PYTHON) -m tests.gpu --out $(or $(OUT),runs/gpu) $(if $(DATA),--data_dir $(DATA)) $(ARGS)

wheels: | $(RUN)
	@$(RUN) -m pip wheel -q --disable-pip-version-check -c constraints.txt -w .wheels ".[$(EXTRAS)]"

# Each study resumes where it was stopped; with --keep-going all are compared even if one differs.
RESULTS = analysis/results
PUBLISHED = $(notdir $(patsubst %/,%,$(wildcard $(RESULTS)/*/)))
results: $(addprefix results-,$(or $(STUDY),$(PUBLISHED)))

results-%: $(VENV)/.demo
	@$(RUN) -m analysis.reproduce $(RESULTS)/$* --workdir=runs/$(notdir $(RESULTS))/$* $(if $(DATA),--data_dir=$(DATA))

faults: $(VENV)/.test
	@mkdir -p runs
	@$(RUN) -m tests.faults --count 300 --json runs/faults.json --keep runs/faults

mutants: $(VENV)/.test
	@mkdir -p runs
	@$(RUN) -m tests.mutants --json runs/mutants.json $(if $(ONLY),--only "$(ONLY)")

notebook: $(VENV)/.test
	@$(RUN) -m tests.support.notebook

clean:
	rm -rf $(VENV) .venv-newest $(AOT) runs/demo build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.demo: pyproject.toml constraints.txt | $(RUN)
	@echo "installing the pinned packages into $(VENV) (once, a minute or two) ..."
	@$(INSTALL) -e ".[analysis]"
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(RUN)
	@echo "installing the pinned packages and test tools into $(VENV) (once, a minute or two) ..."
	@$(INSTALL) -e ".[test]"
	@touch $(VENV)/.demo $@

$(AOT)/.done: $(VENV)/.test constraints.txt
	@echo "installing the compilers for TPUs and NVIDIA's GPUs into $(AOT) (once, 400 MB) ..."
	@$(RUN) -m venv --clear $(AOT)
	@echo "import site; site.addsitedir('$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
	    >$$($(AOT)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth
	@version=$$($(RUN) -c 'import jaxlib; print(jaxlib.__version__)'); \
	    $(AOT)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
	    "jax[tpu]==$$version" jax-cuda12-plugin==$$version jax-cuda12-pjrt==$$version
	@touch $@

# A name on the PATH may be a shim for an interpreter that is not installed, so each candidate is run.
$(RUN):
	@bare=; for python in $(CANDIDATES); do \
	    "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null || continue; \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null && exec "$$python" -m venv --clear $(VENV); \
	    bare="$$python"; \
	done; \
	if [ -n "$$bare" ]; then \
	    echo "$$bare cannot create virtual environments: on Debian and Ubuntu, apt install python3-venv" >&2; \
	else \
	    echo "no Python 3.11 or newer among: $(CANDIDATES); install one, or name it: make PYTHON=/path/to/python3" >&2; \
	fi; exit 1
