"""A directory of malformed and unusual inputs, made anew: audio, values, names and manifests."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import soundfile

from pipeline.audio.files import resample

RATE = 16_000
_FORMATS = {
    "mono_8bit.wav": (RATE, 1, "WAV", "PCM_U8"),
    "mono_24bit.wav": (RATE, 1, "WAV", "PCM_24"),
    "mono_32bit_int.wav": (RATE, 1, "WAV", "PCM_32"),
    "mono_float32.wav": (RATE, 1, "WAV", "FLOAT"),
    "mono_float64.wav": (RATE, 1, "WAV", "DOUBLE"),
    "extensible_24bit_stereo.wav": (RATE, 2, "WAVEX", "PCM_24"),
    "mulaw.wav": (RATE, 1, "WAV", "ULAW"),
    "alaw.wav": (RATE, 1, "WAV", "ALAW"),
    "ima_adpcm.wav": (RATE, 1, "WAV", "IMA_ADPCM"),
    "stereo_96k_24bit.wav": (96_000, 2, "WAV", "PCM_24"),
    "eight_channels_48k.wav": (48_000, 8, "WAV", "PCM_16"),
    "odd_rate_44101.wav": (44_101, 1, "WAV", "PCM_16"),
    "rate_11025.wav": (11_025, 1, "WAV", "PCM_16"),
    "rate_192k.wav": (192_000, 1, "WAV", "PCM_16"),
    "aiff_big_endian.aiff": (RATE, 1, "AIFF", "PCM_16"),
    "opus_16k.opus": (RATE, 1, "OGG", "OPUS"),
}
_NAMES = (
    "sp ace.wav", "new\nline.wav", "tab\tname.wav", 'quote"name.wav', "apos'name.wav",
    "pipe|name.wav", "comma,name.wav", "semi;colon.wav", "-dash.wav", "--flag=x.wav",
    "\u58f0\u97f3_\u00e9_\u00f1.wav", "caf\u00e9.wav", "cafe\u0301.wav", "\U0001f3b5.wav",
    "UPPER.WAV", "upper.wav", ".hidden.wav", "back\\slash.wav", "$(touch x).wav", "no_extension",
    "two.dots.wav", f"{'x' * 236}.wav", "sub dir/\u00fc/deep.wav", "\u202egnp.wav",
)  # fmt: skip
_DIGIT_NAMES = (
    "7_jackson_3", "7_jackson", "x_jackson_3", "12_jackson_0", "7__3", "7_jack_son_3",
    "7_jackson_3 (copy)", "7_jackson_003", "\u0667_jackson_1",
)  # fmt: skip
_ESC = "filename,fold,target,category,esc10,src_file,take\n"
_DOG = "1-100032-A-0.ogg,1,0,dog,True,100032,A\n"
_CAPS = (
    "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,"
    "is_balanced_subset,is_audioset_eval\n"
)
_MANIFESTS = {
    "lj/missing_file.csv": "LJ001-0001|One|One\nLJ099-9999|Lost|Lost\nLJ001-0002|Two|Two\n",
    "lj/duplicate_id.csv": "LJ001-0001|One|One\nLJ001-0002|Two|Two\nLJ001-0001|One|One\n",
    "lj/duplicate_id_conflict.csv": "LJ001-0001|One|One\nLJ001-0001|Other|Other\n",
    "lj/empty_transcript.csv": "LJ001-0001|One|One\nLJ001-0002||\nLJ001-0003| | \n",
    "lj/wrong_columns.csv": "LJ001-0001|One|One\nLJ001-0002\nLJ001-0003|a|b|c|d\n",
    "lj/two_columns.csv": "LJ001-0002|Two words\n",
    "lj/bom_crlf.csv": "\ufeffLJ001-0001|One|One\r\nLJ001-0002|Two|Two\r\n",
    "lj/latin1.csv": b"LJ001-0001|One|One\nLJ001-0002|r\xeane|r\xeane\n",
    "lj/utf16.csv": "LJ001-0001|One|One\n".encode("utf-16"),
    "lj/nul_byte.csv": "LJ001-0001|One|One\nLJ001-0002|tw\0o|tw\0o\n",
    "lj/control_bidi.csv": "LJ001-0002|in \u202ebeing\u202c \u200bcompa\u00adred \amodern.|x\n",
    "lj/quotes_unbalanced.csv": 'LJ001-0001|He "go|He "go\nLJ001-0002|"went" a"|"went" a"\n',
    "lj/no_final_newline.csv": "LJ001-0001|One|One\nLJ001-0002|Two|Two",
    "lj/blank_and_comment.csv": "\n# comment\nLJ001-0001|One|One\n\nLJ001-0002|Two|Two\n",
    "lj/empty.csv": "",
    "lj/huge_text.csv": f"LJ001-0001|{'word ' * 20_000}|x\n",
    "lj/path_traversal.csv": "../../etc/passwd|a|a\n/etc/passwd|a|a\nLJ001-0002|Two|Two\n",
    "lj/case_mismatch.csv": "lj001-0001|One|One\n",
    "esc/good.csv": _ESC + _DOG,
    "esc/unclosed_quote.csv": _ESC + '1-100032-A-0.ogg,1,0,"dog,True,100032,A\n' + _DOG,
    "esc/bom.csv": f"\ufeff{_ESC}{_DOG}",
    "esc/semicolon.csv": (_ESC + _DOG).replace(",", ";"),
    "esc/missing_column.csv": "filename,fold,target\n1-100032-A-0.ogg,1,0\n",
    "esc/no_header.csv": _DOG,
    "esc/bad_types.csv": f"{_ESC}1-100032-A-0.ogg,one,zero,dog,maybe,x,A\n",
    "esc/wrong_extension.csv": _ESC + _DOG.replace(".ogg", ".wav"),
    "esc/conflicting_labels.csv": _ESC + _DOG + _DOG.replace("dog", "rooster"),
    "esc/short_row.csv": f"{_ESC}1-100032-A-0.ogg,1,0\n",
    "esc/empty_category.csv": _ESC + _DOG.replace("dog", ""),
    "musiccaps/multiline_caption.csv": (
        f"{_CAPS}clip_a,30,40,/m/04rlf,\"['piano', 'sad']\","
        '"First line.\nSecond, with a comma and a ""quote"".",1,False,False\n'
    ),
    "musiccaps/bad_aspect_list.csv": (
        f"{_CAPS}clip_a,30,40,/m/04rlf,\"['piano', 'sad\",A piano.,1,False,False\n"
    ),
    "musiccaps/code_in_aspect_list.csv": (
        f"{_CAPS}clip_a,30,40,/m/04rlf,"
        "\"__import__('pathlib').Path('EVAL_WAS_USED').touch()\",A piano.,1,False,False\n"
    ),
    "musiccaps/end_before_start.csv": f"{_CAPS}clip_a,40,30,x,['piano'],A piano.,1,False,False\n",
    "musiccaps/bad_times.csv": (
        f"{_CAPS}clip_a,nan,inf,x,['piano'],A piano.,1,False,False\n"
        "clip_a,-5,5,x,[],A piano.,1,False,False\n"
    ),
    "musiccaps/empty_caption.csv": f"{_CAPS}clip_a,30,40,x,['piano'],,1,False,False\n",
    "musiccaps/leading_dash_id.csv": (
        f"{_CAPS}-0Gj8-vB1q4,30,40,x,['piano'],A piano.,1,False,False\n"
        "=SUM(A1),30,40,x,[],x,1,False,False\n"
    ),
    "librispeech/1688/142285/1688-142285.trans.txt": (
        "1688-142285-0000 ONE\n1688-142285-0001\n1688-142285-0002 NO SUCH AUDIO\n"
        "1688-142285-0000 OTHER\n9999-000000-0000 OTHER CHAPTER\nlower case line without an id\n"
    ),
    "json/truncated.json": '{"0075d273.wav": {"intent": "order',
    "json/duplicate_keys.json": '{"a.wav": {"intent": "x"}, "a.wav": {"intent": "y"}}',
    "json/nan.json": '{"duration": NaN, "sample_rate": Infinity, "description": "x"}',
    "json/trailing_comma.json": '{"description": "x",}',
    "json/wrong_types.json": (
        '{"description": ["x"], "duration": "15.0", "sample_rate": "44100", "genre": null}'
    ),
    "json/not_an_object.json": "[1, 2, 3]",
    "json/deep.json": "[" * 3_000 + "]" * 3_000,
    "json/sidecar_lies.json": (
        '{"sample_rate": 8000, "duration": 9999.0, "file_extension": "mp3", "description": "x"}'
    ),
    "srt/bad.srt": (
        "1\n00:00:02,000 --> 00:00:01,000\nends before it starts\n\n"
        "2\n00:00:00,500 --> 00:00:03,000\noverlaps the next\n\n"
        "3\n00:00:02,000 --> 00:00:04,000\noverlaps\n\n"
        "4\n00:99:00,000 --> 00:00:05,000\nno such minute\n\n"
        "5\nno time line\n\n6\n00:00:50,000 --> 00:00:51,000\nbeyond the end\n"
    ),
}


def noise(duration_s: float = 0.5, channels: int = 1) -> np.ndarray:
    """Full-band noise at `RATE`, `channels samples`."""
    samples = np.random.default_rng(0).standard_normal((1, round(duration_s * RATE)))
    return np.repeat((0.1 * samples).astype(np.float32), channels, axis=0)


def encoded(
    wave: np.ndarray, rate: int = RATE, container: str = "WAV", subtype: str | None = "PCM_16"
) -> bytes:
    """A file in memory."""
    sink = io.BytesIO()
    soundfile.write(sink, wave.T, rate, format=container, subtype=subtype)
    return sink.getvalue()


def write_bad_inputs(folder: Path) -> None:
    """Write all cases, and `expected.csv` that lists their paths."""
    files = {f"audio/{name}": payload for name, payload in _containers().items()}
    for name, (rate, channels, container, subtype) in _FORMATS.items():
        is_odd = rate % 100 == 1
        wave = noise() if is_odd else resample(noise(channels=channels), RATE, rate)
        files[f"formats/{name}"] = encoded(wave, rate, container, subtype)
    files |= {f"values/{name}": payload for name, payload in _values().items()}
    files |= {f"names/{name}": encoded(noise()) for name in _NAMES}
    files |= {f"fsdd_names/{name}.wav": encoded(noise()) for name in _DIGIT_NAMES}
    for name, text in _MANIFESTS.items():
        files[f"manifests/{name}"] = text if isinstance(text, bytes) else text.encode()
    cases = list(files)
    for name in ("lj/wavs/LJ001-0001.wav", "lj/wavs/LJ001-0002.wav", "lj/wavs/LJ001-0003.wav"):
        files[f"manifests/{name}"] = encoded(noise())
    for name in (
        "esc/audio/1-100032-A-0.ogg",
        "musiccaps/audio/clip_a.ogg",
        "json/sidecar_lies.ogg",
    ):
        files[f"manifests/{name}"] = encoded(noise(), RATE, "OGG", "VORBIS")
    speech = encoded(noise(), RATE, "FLAC")
    files["manifests/librispeech/1688/142285/1688-142285-0000.flac"] = speech
    for name, payload in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(payload)
    with open(folder / "expected.csv", "w", encoding="utf-8", newline="") as sink:
        csv.writer(sink).writerows([("path",), *((case,) for case in cases)])


def _containers() -> dict[str, bytes]:
    wav, flac = encoded(noise()), encoded(noise(2.0), RATE, "FLAC")
    ogg = encoded(noise(6.0), RATE, "OGG", "VORBIS")
    data = wav.index(b"data")

    def patched(at: int, payload: bytes, of: bytes = wav) -> bytes:
        return of[:at] + payload + of[at + len(payload) :]

    endless = patched(4, b"\xff" * 4, patched(data + 4, b"\xff" * 4))
    chunk = b"LIST" + (26).to_bytes(4, "little") + b"INFOISFT\x0e\x00\x00\x00some encoder\x00\x00"
    return {
        "ok_16k.wav": wav,
        "truncated.wav": encoded(noise(2.0))[:40_000],
        "truncated_header.wav": wav[:30],
        "header_only.wav": encoded(noise(0.0)),
        "zero_byte.wav": b"",
        "streamed_lengths.wav": endless,
        "data_len_zero.wav": patched(data + 4, bytes(4)),
        "odd_data_len.wav": patched(data + 4, (len(wav) - data - 9).to_bytes(4, "little")),
        "list_chunk_first.wav": wav[:data] + chunk + wav[data:],
        "junk_after_data.wav": wav + b"garbage " * 40,
        "rate_zero.wav": patched(24, bytes(4)),
        "rate_huge.wav": patched(24, (4_000_000_000).to_bytes(4, "little")),
        "channels_zero.wav": patched(22, bytes(2)),
        "unknown_codec.wav": patched(20, b"\x34\x12"),
        "truncated.flac": flac[: len(flac) * 2 // 3],
        "corrupt_middle.flac": patched(len(flac) // 2, bytes(64), flac),
        "truncated.ogg": ogg[: len(ogg) // 2],
        "flac_named.wav": flac,
        "ogg_named.mp3": ogg,
        "wav_named.flac": wav,
        "text_named.wav": b"<html><body>404 Not Found</body></html>\n",
        "lfs_pointer.wav": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "raw_pcm_no_header.wav": wav[data + 8 :],
        "long_silence_1800s.flac": encoded(np.zeros((1, 1_800 * 1_000)), 1_000, "FLAC"),
    }


def _values() -> dict[str, bytes]:
    wave = noise()
    broken, infinite = wave.copy(), wave.copy()
    broken[0, 100:200], infinite[0, [5, 50]] = np.nan, (np.inf, -np.inf)
    floats = {
        "nan_samples.wav": broken,
        "inf_samples.wav": infinite,
        "float_over_range.wav": 8 * wave / np.abs(wave).max(),
        "float_int_scale.wav": 32_767 * wave,
        "denormals.wav": np.full_like(wave, 1e-40),
    }
    whole = {
        "silence.wav": 0 * wave,
        "near_silence.wav": np.sign(wave) / 32_768,
        "clipped.wav": np.clip(60 * wave, -1, 1),
        "dc_offset.wav": 0.3 * wave + 0.6,
        "one_channel_silent.wav": np.concatenate([wave, 0 * wave]),
        "antiphase_stereo.wav": np.concatenate([wave, -wave]),
        "clip_0.01s.wav": wave[:, :160],
        "one_sample.wav": wave[:, :1],
    }
    return {name: encoded(samples, subtype="FLOAT") for name, samples in floats.items()} | {
        name: encoded(samples) for name, samples in whole.items()
    }
