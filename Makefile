# Short names for scripts/, which do all the work and say what they need.
.PHONY: help quick test demo docs check bench soak mutate

help: ## Show this.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

quick: ## Checks, and the tests that need no root and no kernel, in a minute. ARGS go to pytest.
	@scripts/quick $(ARGS)

test: ## All tests; installs what is missing. ARGS go to pytest: make test ARGS='-k affinity'
	@scripts/test $(ARGS)

demo: ## A blog behind a Service, in network namespaces of its own. Needs root.
	@scripts/demo

docs: ## Write the tables in docs/ anew from the declarations.
	@scripts/docs

check: ## Style, format, types, layers.
	@scripts/check

bench: ## What it costs at 1,000 and 10,000 Services. Needs root.
	@scripts/bench $(ARGS)

mutate: ## Which small faults the tests notice. ARGS go to scripts/mutate: make mutate ARGS='--number 10'
	@scripts/mutate $(ARGS)

soak: ## A node in all that can go wrong at once, for some 20 minutes. Needs root.
	@scripts/soak $(ARGS)
