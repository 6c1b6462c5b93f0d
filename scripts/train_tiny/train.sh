#!/usr/bin/env bash
# Trains the tiny model from nothing, part after part: bash scripts/train_tiny/train.sh WORK [--smoke]
#
# WORK holds the data, every run and the result (WORK/tiny). Every part continues where it stopped; a finished part does
# not run again. Steps are those of the shipped model, whose trainings took 8 hours on shared cores. --smoke runs all
# parts in about three minutes in the folder WORK/smoke; its model has learnt nothing. Needs an editable installation
# with the extras [build,quality] and the program espeak-ng.
set -euo pipefail

work=$1
codec=(--steps 4800) vocoder=(--steps 5250) talker=(--steps 19400) thinker=(--steps 6400) hours=2.9 variations=8
if [ "${2:-}" = --smoke ]; then
  work=$1/smoke
  codec=(--steps 2) vocoder=(--steps 2) talker=(--steps 2) thinker=(--steps 2) hours=0.02 variations=1
fi
train() { echo "== $1"; python -m "antiphon.scripts.train_tiny.$@"; }

mkdir -p "$work"
[ -f "$work/start/config.json" ] || train shape "$work/start"
[ -f "$work/corpus/items.jsonl" ] || train corpus "$work/corpus" --hours "$hours"
# The codec; its codes do not change afterwards.
train codec_training "$work/corpus" "$work/codec" --checkpoint "$work/start" "${codec[@]}"
[ -f "$work/codes.npz" ] || train codes "$work/corpus" "$work/codec" "$work/codes.npz" --checkpoint "$work/start"
train vocoder_training "$work/corpus" "$work/codec" "$work/codes.npz" "$work/vocoder" --checkpoint "$work/start" "${vocoder[@]}"
# Speech from given text, with many variations of the same recordings.
for seed in $(seq "$variations"); do
  [ -f "$work/codes_$seed.npz" ] || train codes "$work/corpus" "$work/codec" "$work/codes_$seed.npz" --checkpoint "$work/start" --variation "$seed"
done
train talker_training "$work/corpus" "$work/talker" "$work/codes.npz" "$work"/codes_*.npz --checkpoint "$work/start" "${talker[@]}"
# Answers, and hearing.
train thinker_training "$work/corpus" "$work/thinker" --checkpoint "$work/start" "${thinker[@]}"
train voices "$work/corpus" "$work/codes.npz" "$work/voices.npz"
train paces "$work/corpus" "$work/codes.npz" "$work/paces.json" --checkpoint "$work/start"
train assemble "$work/start" "$work/tiny" --codec "$work/codec" --vocoder "$work/vocoder" --talker "$work/talker" --thinker "$work/thinker" \
  --voices "$work/voices.npz" --generation "$work/paces.json"
