# Short names for scripts/, which do all the work and say what they need.
.PHONY: help quick test demo docs check bench soak mutate

help: ## Show this list.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

quick: ## Run checks, and tests without root and kernel, in a minute. ARGS are passed to pytest.
	@scripts/quick $(ARGS)

test: ## Install missing packages, then run all tests: make test ARGS='-k affinity'
	@scripts/test $(ARGS)

demo: ## Show a blog behind a Service, in separate network namespaces. Needs root.
	@scripts/demo

docs: ## Write the tables in docs/ from the declarations.
	@scripts/docs

check: ## Check style, format, types and layers.
	@scripts/check

bench: ## Measure time and memory at 1,000 and 10,000 Services. Needs root.
	@scripts/bench $(ARGS)

mutate: ## Put small faults into the code, and list those that no test notices: make mutate ARGS='--number 10'
	@scripts/mutate $(ARGS)

soak: ## Test a node for about 20 minutes, with faults of all kinds at the same time. Needs root.
	@scripts/soak $(ARGS)
