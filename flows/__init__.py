"""The front door: the command line, Prefect flows, and deployments. The only importer of prefect.

Read the rooms in this order: `cli` (the verbs) with `options` and `errors` (the exit codes), `parameters` (what a
verb or a deployment can be told), `making` (the verbs that make something) and `listing` (those that look), `work`
(build and train, whoever does the tasks), `runner` (partitions as Prefect tasks), `build`, `train` and
`corpus_to_model` (the flows) with their `artifacts`, `embedded` and `server` (Prefect's server for the length of one
command), `process` (training as a process), `runs`, `deploy`. What people see is in `screen`, `progress` and `show`.
It never imports torch: training is started as a process.
"""
