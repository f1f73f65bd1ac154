#!/usr/bin/env bash
# The quickstart's recipe end to end in two CPU processes, cut down to two steps of each twin.
set -euo pipefail
output=${OUTPUT:-outputs/tiny}
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
accelerate launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no \
  -m inspo_hub.run recipes/quickstart.yaml --output "$output" \
  --set train.max_steps=2 --set data.train.0.limit=64 --set data.heldout.0.limit=16 --set evaluate=null
for variant in dpo inspo; do
  test -s "$output/$variant/model.safetensors"
  test -s "$output/$variant/README.md"
done
