#!/usr/bin/env bash
# The table of planted dictionaries: each row's recipe, three seeds side by side. ROOT: where runs are kept.
set -euo pipefail
ROOT=${1:-outputs/sae}
run() {
  name=$1; shift
  aaca sae dataset=synthetic_sparse sae.scale=none sae.holdout=0 sae.repeats=3 sae.model.bias=zeros paths.root="$ROOT/$name" "$@"
}
relu="sae=relu sae.model.reconstruction=mse_mean"
topk="sae.model.auxk=0 sae.model.k=4 sae.model.reconstruction=mse_mean sae.training.lr=3e-3 sae.training.batch_size=256 sae.training.epochs=10"
fast="sae.training.lr=3e-3 sae.training.batch_size=256 sae.training.epochs=15"
slow="sae.training.lr=1e-3 sae.training.batch_size=1024"
again3="sae.resampling={every:3}"
again5="sae.resampling={every:5}"
run 01 $relu $fast sae.model.latents=128 sae.model.l1=1e-2
run 02 $relu $slow sae.training.epochs=30 sae.model.latents=128 sae.model.l1=3e-3
run 03 $relu $slow sae.training.epochs=30 sae.model.latents=128 sae.model.l1=3e-3 sae.model.init=dncbm $again5
run 04 $relu $fast sae.model.latents=256 sae.model.l1=1e-2 sae.model.init=dncbm $again3
run 05 sae=topk $topk sae.model.latents=256
run 06 sae=batchtopk $topk sae.model.latents=256
run 07 sae=topk $topk sae.model.latents=128
run 08 $relu $fast sae.model.latents=128 sae.model.l1=1e-2 sae.model.init=dncbm $again3
run 09 $relu $fast sae.model.latents=128 sae.model.l1=1e-2 sae.model.init=kaiming $again3
run 10 $relu $slow sae.training.epochs=20 sae.model.latents=128 sae.model.l1=3e-3 sae.model.init_scale=1.0
run 11 $relu $slow sae.training.epochs=20 sae.model.latents=128 sae.model.l1=3e-3 sae.model.init=kaiming
