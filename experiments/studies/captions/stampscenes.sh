#!/usr/bin/env bash
# Captions on StampScenes, three seeds: the ladder of variants, mended graphs, what words hang on, filters, alignment. ROOT: where runs are kept.
set -euo pipefail
ROOT=${1:-outputs/captions}
seeds="seed=0,1,2 trainer=cpu"
table() { python -m experiments.studies.job_tables "$ROOT/$1/caption" "$2" experiments/studies/captions "${@:3}"; }
aaca caption -m $seeds paths.root="$ROOT/ladder" captioner=node,node_role,rgcn,rgcn_flow,rgcn_memory,rgcn_flow_memory
kept=drop_object_content_kept,drop_attribute_edit_sensitivity,drop_attribute_locality,drop_attribute_content_kept,reverse_edit_sensitivity,reverse_locality,reverse_content_kept
table ladder table ladder cider,structure,g_objects,g_attributes,g_relationships,exact,direction_accuracy,drop_object_edit_sensitivity,drop_object_locality,$kept,self_cider
aaca caption -m $seeds paths.root="$ROOT/ladder" action=regraph
table ladder regraph regraph
aaca caption -m $seeds paths.root="$ROOT/ladder" action=explain explain.pictures=0
aaca caption -m $seeds paths.root="$ROOT/ladder" action=explain explain.pictures=0 training.align=attention training.align_weight=0.3
table ladder pointing pointing
aaca caption -m $seeds paths.root="$ROOT/ladder" action=filter filter.keep=0.7
table ladder filter filter
alone="rationale.foreign=1 rationale.test=true score.examples=0"
aaca caption -m $seeds paths.root="$ROOT/rationale" $alone
aaca caption -m $seeds paths.root="$ROOT/rationale" $alone training.align=leak,attribution training.align_weight=0.3
table rationale table rationale leak,leak_by_chance,attribution_leak,foreign_cider,foreign_structure,cider,structure,exact
