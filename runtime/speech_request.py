"""From a conversation, a voice and the options of a reply to what its Talker and vocoder need.

Everything is checked before they run.
"""

from __future__ import annotations

from bisect import bisect_left

from .bundle.errors import ContextFull
from .bundle.talker_contract import TalkerContract
from .model import LoadedModel
from .options import ResolvedOptions
from .reply import SpeechRequest
from .stages.aria import Policy
from .stages.talker import Talker
from .stages.talker_rows.joined_prompt import ASSISTANT_ROWS, talker_prompt, user_rows
from .stages.talker_rows.rows import InterleavedRows, SummedCodeRows, SummedRows, TalkerPrompt, TalkerRows
from .stages.talker_rows.sequence_prompt import SpeakingStyle, interleaved_prompt, prompt_rows
from .stages.thinker import ThinkerContext
from .stages.vocoder import Vocoder
from .stages.voices import Voice


def speech_request(
    model: LoadedModel,
    context: ThinkerContext,
    options: ResolvedOptions,
    voice: Voice,
    text_tokens: int | None = None,
) -> SpeechRequest:
    """How the next answer in `context` is spoken.

    `text_tokens`: the length of a given text, None where the Thinker is going to write it.

    Raises AntiphonError where the user's turns with the voice and the style, or a given text,
    exceed the Talker's context.
    """
    contract = model.manifest.talker
    assert contract is not None, "a bundle without speech has no Talker"
    make_rows = _sequence_rows if contract.voice == "frames" else _joined_rows
    rows, prompt = make_rows(model, context, contract, options, voice)
    limit = model.manifest.constants.talker_context
    if prompt >= limit:
        raise ContextFull(
            f"The user's turns, the voice and the style need {prompt} rows of the Talker's context, "
            f"which holds {limit}; shorten them or ask for text only."
        )
    if text_tokens is not None:
        # the first text row is the last of ASSISTANT_ROWS
        in_prompt = 1 if contract.voice == "codec_id" else 0
        needed = prompt - in_prompt + rows_to_speak(text_tokens, options.policy, limit)
        if needed > limit:
            raise ContextFull(
                f"The text has {text_tokens} tokens, and its speech needs at least {needed} rows of the "
                f"Talker's context, which holds {limit}; speak it in parts."
            )
    return SpeechRequest(
        make_talker=lambda priority: Talker(
            model.engines,
            model.manifest,
            model.engine_lock,
            rows,
            options.policy,
            options.talker,
            options.predictor,
            options.seed,
            priority,
            model.prefill_chunk,
        ),
        make_vocoder=lambda priority: Vocoder(model.engines["code2wav"], model.engine_lock, priority),
        end_id=model.manifest.id("tts_eos"),
        schedule=options.schedule,
        max_frames=options.max_frames,
        policy=options.policy,
        frames_per_token=model.frames_per_token,
    )


def rows_to_speak(text_tokens: int, policy: Policy, limit: int) -> int:
    """The least number of rows, the first text row included, until a text of `text_tokens` tokens and
    its end are in; more than `limit` where even so many frames do not take it.
    """
    # the first frame that has all of the text before it
    frame = bisect_left(range(1, limit + 1), text_tokens + 1, key=policy.text_rows_before) + 1
    return frame - 1 + text_tokens + 1 if policy.layout == "interleaved" else frame


def _joined_rows(
    model: LoadedModel,
    context: ThinkerContext,
    contract: TalkerContract,
    options: ResolvedOptions,
    voice: Voice,
) -> tuple[TalkerRows, int]:
    """Rows behind a prompt whose voice is a codec id, and the number of rows of that prompt."""
    manifest, codec_id, sizes = model.manifest, voice.codec_id, model.input_sizes("talker")
    assert codec_id is not None

    def make_prompt(first_token: int) -> TalkerPrompt:
        prompt_ids = context.turn_ids(context.answer_row)
        return talker_prompt(
            prompt_ids,
            context.hidden_rows,
            sizes["hidden"],
            context.media,
            manifest.ids,
            codec_id,
            first_token,
            model.front_end,
            sizes[contract.frame_input],
        )

    return SummedRows(make_prompt, manifest.id("tts_pad")), len(
        user_rows(context.turn_ids(), manifest.ids)
    ) + ASSISTANT_ROWS


def _sequence_rows(
    model: LoadedModel,
    context: ThinkerContext,
    contract: TalkerContract,
    options: ResolvedOptions,
    voice: Voice,
) -> tuple[TalkerRows, int]:
    """Rows behind a prompt whose voice is frames, and the number of rows of that prompt."""
    manifest, style = model.manifest, options.style
    assert voice.codes is not None
    named = manifest.speech_prompts.styles.get(style.lower()) if style is not None else None
    in_words = model.front_end.encode_text(style).tolist() if style is not None and named is None else []
    speaking = SpeakingStyle(voice.codes, voice.prompt_ids, in_words, named or (), options.language)
    limit, hidden_size = contract.hidden_rows, model.input_sizes("talker")["hidden"]

    def make_prompt() -> TalkerPrompt:
        prompt_ids = context.turn_ids(context.answer_row)
        return interleaved_prompt(prompt_ids, context.hidden_rows, hidden_size, limit, manifest.ids, speaking)

    rows = (
        SummedCodeRows(make_prompt, manifest.id("tts_pad"))
        if contract.layout == "summed"
        else InterleavedRows(make_prompt)
    )
    return rows, prompt_rows(context.turn_ids(), limit, manifest.ids, speaking)
