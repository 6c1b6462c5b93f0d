#!/bin/sh
# A config.json that transformers 5 saved makes another model when transformers 4 reads it, without a word: rope_theta and rope_scaling are the class's
# defaults (they moved to `rope_parameters`), and the Talker of Qwen3-Omni has the default number of experts (saved as `num_local_experts`). The weights still
# fit when only rope_theta is another. The other way round is fine. Needs: python3 with venv, pip. Exits 0 when the behaviour is as told, 1 when it is
# another, 2 when it cannot be tried.
set -eu
NEW=${1:-5.23.0}
OLD=${2:-4.57.6}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
install() {
    python3 -m venv "$folder/$1" && "$folder/$1/bin/python" -m pip install --quiet --no-compile "transformers==$2" >"$folder/pip.log" 2>&1 || {
        cat "$folder/pip.log" >&2
        exit 2
    }
}
install new "$NEW"
install old "$OLD"

cat >"$folder/write.py" <<'PY'
import sys
from transformers import LlamaConfig, Qwen3Config, Qwen3OmniMoeConfig

to = sys.argv[1]
llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LlamaConfig(rope_theta=500000.0, rope_scaling=llama3, max_position_embeddings=131072).save_pretrained(f"{to}/llama")
Qwen3Config(rope_theta=1000000.0).save_pretrained(f"{to}/qwen3")
talker = {"num_experts": 64, "num_experts_per_tok": 6, "rope_theta": 1000000.0}
Qwen3OmniMoeConfig.from_dict({"talker_config": {"text_config": talker}}).save_pretrained(f"{to}/omni")
PY
cat >"$folder/read.py" <<'PY'
import sys
from transformers import AutoConfig

def rope(config):
    """The base and the kind of scaling that the model's rotary embedding would use."""
    older = hasattr(config, "rope_theta")
    scaling = dict(config.rope_scaling or {}, rope_theta=config.rope_theta) if older else config.rope_parameters
    return f"{scaling['rope_theta']:.0f} {scaling.get('rope_type', 'default')}"

for saved_in in sys.argv[1:]:
    llama, qwen3, omni = (AutoConfig.from_pretrained(f"{saved_in}/{name}") for name in ("llama", "qwen3", "omni"))
    talker = omni.talker_config.text_config
    print(f"llama {rope(llama)}, qwen3 {rope(qwen3)}, talker {rope(talker)} with {talker.num_experts} experts")
PY

given="llama 500000 llama3, qwen3 1000000 default, talker 1000000 default with 64 experts"
other="llama 10000 default, qwen3 10000 default, talker 10000 default with 128 experts"
echo "version: transformers $NEW and $OLD, $(python3 --version)"
echo "behaviour: $OLD reads what $NEW saved as '$other', expected '$given', and warns of neither"
for writer in new old; do
    HOME=$folder HF_HUB_OFFLINE=1 "$folder/$writer/bin/python" "$folder/write.py" "$folder/by_$writer" >/dev/null 2>&1 || exit 2
done
status=0
check() { # check READER ITS_VERSION EXPECTED: EXPECTED of what the new one saved; what the old one saved must be read as given
    HOME=$folder HF_HUB_OFFLINE=1 "$folder/$1/bin/python" "$folder/read.py" "$folder/by_new" "$folder/by_old" >"$folder/seen" 2>"$folder/warnings" || exit 2
    warned=$(grep -ciE "rope|expert" "$folder/warnings" || true)
    sed "1s/^/seen: saved by $NEW, read by $2: /; 2s/^/seen: saved by $OLD, read by $2: /" "$folder/seen"
    echo "seen: warnings of $2 that name them: $warned"
    [ "$(cat "$folder/seen")" = "$(printf '%s\n' "$3" "$given")" ] && [ "$warned" = 0 ] || status=1
}
check old "$OLD" "$other"
check new "$NEW" "$given"
exit $status
