# Needs Python 3.11 or newer and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo
ARMS := arms
STYLES := convergent divergent
WORKERS ?= 2

.PHONY: demo arms test soak lint bench clean

# Made anew whenever what is installed changes.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# IFEval cuts sentences with NLTK's data, which PyPI has inside another package's wheel.
	$(RUN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(VENV)/wheels \
	    llama-index-core==0.14.25
	$(RUN)/python -m zipfile -e $(VENV)/wheels/*.whl $(VENV)/wheels
	mv $(VENV)/wheels/llama_index/core/_static/nltk_cache $(VENV)/nltk_data
	rm -r $(VENV)/wheels
	touch $@

demo: $(READY)  ## a corpus, a scan with a selection, and what to look at next
	rm -rf $(DEMO)
	$(RUN)/python -m examples.countdown --out $(DEMO)/corpus --traces 4000 --shards 4 --level 2,3 --paired
	$(RUN)/curate scan $(DEMO)/corpus --out $(DEMO)/selected --id id --problem problem_id --teacher teacher \
	    --correct correct --keep correct --drop-top 0.1 --rank-by branch_frac --within teacher
	$(RUN)/curate verify $(DEMO)/selected
	@echo
	@echo 'Look at a trace:        $(RUN)/curate show $(DEMO)/selected countdown-0-000000-divergent-0'
	@echo 'Try another selection:  $(RUN)/curate select $(DEMO)/selected --keep "branch_frac <= 0.2" --out $(DEMO)/other'
	@echo 'Load the dataset:       $(RUN)/python -c "import datasets; print(datasets.load_dataset(\"$(DEMO)/selected\"))"'

arms: $(READY)  ## a model from scratch on each style of traces, and what each then solves; 12 minutes
	rm -rf $(ARMS)
	$(RUN)/python -m examples.countdown --out $(ARMS)/corpus --traces 40000 --level 0 --paired
	$(RUN)/python -m examples.scratch split --corpus $(ARMS)/corpus --out $(ARMS)/parts --held-out 0.2
	$(RUN)/python -m examples.scratch model --corpus $(ARMS)/parts/train --out $(ARMS)/model
	for style in $(STYLES); do \
	    $(RUN)/curate scan $(ARMS)/parts/train --out $(ARMS)/$$style --keep "teacher = '$$style'" --steps \
	        --format prompt-completion --id id --problem problem --teacher teacher --answer answer && \
	    $(RUN)/curate train --data $(ARMS)/$$style --model $(ARMS)/model --output-dir $(ARMS)/run-$$style \
	        --recipe scratch --learning_rate 3e-3 --max_steps 900 --order shuffled --seed 1 \
	        $$(test $$style = convergent || echo --like $(ARMS)/run-convergent) && \
	    $(RUN)/curate evaluate generate --model $(ARMS)/run-$$style/checkpoint-900 \
	        --task examples/countdown.toml --benchmarks $(ARMS)/parts --out $(ARMS)/evaluated-$$style \
	        --max-new-tokens 1024 --samples 4 && \
	    $(RUN)/curate evaluate grade $(ARMS)/evaluated-$$style || exit 1; \
	done
	$(RUN)/curate evaluate compare $(ARMS)/evaluated-convergent $(ARMS)/evaluated-divergent
	$(RUN)/curate evaluate report $(ARMS)/evaluated-convergent $(ARMS)/evaluated-divergent --page $(ARMS)/report.html

test: lint  ## what CI runs
	$(RUN)/python -m pytest -m "not soak" --numprocesses $(WORKERS) --dist worksteal

soak: $(READY)  ## the long runs
	$(RUN)/python -m pytest -m soak

lint: $(READY)
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy

bench: $(READY)  ## the speed targets, as ratios in one run; writes bench/RESULTS.md
	for bench in scan emit memory select start kernel train generate grade audit; do $(RUN)/python -m bench $$bench || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO) $(ARMS) .bench build dist *.egg-info
