#!/usr/bin/env bash
# Captions on StampScenes, three seeds: the ladder of variants, which node words hang on, alignment, the filter, mended graphs. ROOT: where runs are kept.
set -euo pipefail
ROOT=${1:-outputs/captions}
HERE=experiments/studies/captions
seeds="seed=0,1,2 trainer=cpu"
table() { python -m experiments.studies.job_tables "$ROOT/$1/caption" "$2" $HERE "$3"; }
aaca caption -m $seeds paths.root="$ROOT/ladder" captioner=node,node_role,rgcn,rgcn_flow,rgcn_memory,rgcn_flow_memory
table ladder table ladder
aaca caption -m $seeds paths.root="$ROOT/ladder" action=regraph
table ladder regraph regraph
aaca caption -m $seeds paths.root="$ROOT/ladder" action=explain explain.pictures=0
aaca caption -m $seeds paths.root="$ROOT/ladder" action=explain explain.pictures=0 training.align=attention training.align_weight=0.3
table ladder pointing pointing
aaca caption -m $seeds paths.root="$ROOT/ladder" action=filter filter.keep=0.7 filter.by=records
table ladder filter filter
aaca caption -m $seeds paths.root="$ROOT/rationale" rationale.foreign=1 rationale.test=true score.examples=0
aaca caption -m $seeds paths.root="$ROOT/rationale" rationale.foreign=1 rationale.test=true score.examples=0 \
  training.align=leak,attribution training.align_weight=0.3
table rationale table rationale
