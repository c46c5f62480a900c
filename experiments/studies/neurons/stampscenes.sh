#!/usr/bin/env bash
# Neurons on StampScenes, three seeds: the one table of methods; scorers; how many neurons are edited, and how. ROOT: where runs are kept.
set -euo pipefail
ROOT=${1:-outputs/neurons}
seeds="seed=0,1,2"
named="concepts=gt neuron_names.by=masks"
aaca debug -m $seeds trainer=cpu paths.root="$ROOT" \
  method=none,s_random,dfr,group_dro,jtt,edit_inspected,neuroinspect,edit_mask_refit,edit_project,edit_random,edit_ce
aaca compare paths.root="$ROOT"
aaca inspect -m $seeds trainer=cpu paths.root="$ROOT" inspect.classes=all $named \
  inspect.scorer=counterfactual,contribution,gradient,weight,importance,random
python -m experiments.studies.job_tables "$ROOT/inspect" found experiments/studies/neurons
planted="repair.choose=sets sets=$PWD/experiments/studies/neurons/planted.yaml concepts=gt"
aaca edit -m $seeds trainer=cpu paths.root="$ROOT" inspect.classes=all $planted page.images=0 page.cards=1 \
  repair.method=retention,retention_mean,log_ratio,project,mask_refit,zero repair.top=5,20,null
aaca edit -m $seeds trainer=cpu paths.root="$ROOT" inspect.classes=all $planted page.images=0 page.cards=1 \
  repair.method=retention,mask_refit,project repair.top=5,20,null repair.random=true
aaca edit -m $seeds trainer=cpu paths.root="$ROOT" inspect.classes=all $planted page.images=0 page.cards=1 \
  repair.method=retention repair.strength=0.01,1.0
python -m experiments.studies.job_tables "$ROOT/edit" change experiments/studies/neurons
