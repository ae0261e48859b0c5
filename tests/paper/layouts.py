"""All nine tasks of GLUE, and XNLI, as their publishers lay them out, with rows of our own."""

from __future__ import annotations

from pathlib import Path

from tests import tiny_tokenizers

PAIRS = [
    ("the cat sat", "on the mat"),
    ("a naïve café", "12 cups"),
    ('the "dog', "didn't sit"),  # a quotation mark that is never closed
]
ROWS = len(PAIRS)
TASKS = ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI")
PARSES = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
XNLI_HEADER = (
    f"language\tgold_label\t{PARSES}\tsentence1\tsentence2\tpromptID\tpairID\tgenre\tlabel1\t"
    "label2\tlabel3\tlabel4\tlabel5\tsentence1_tokenized\tsentence2_tokenized\tmatch"
)
MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
MNLI_START = f"index\tpromptID\tpairID\tgenre\t{PARSES}\tsentence1\tsentence2"
STSB_START = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
ENTAILMENT = ("entailment", "not_entailment")
MNLI_LABELS = ("entailment", "neutral", "contradiction")


def write_lines(path: Path, *lines: str) -> Path:
    """Write a file, and its folder.

    Args:
        path: The file.
        *lines: Its lines.

    Returns:
        The file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_glue(folder: Path) -> Path:
    """Write all nine tasks.

    Args:
        folder: Of the tasks' folders.

    Returns:
        The same.
    """
    for split in ("train", "dev", "test"):
        labelled = split != "test"
        for task in ("QNLI", "RTE", "SST-2", "STS-B", "WNLI", "QQP"):
            write_lines(folder / task / f"{split}.tsv", *_lines(task, labelled=labelled))
        cola = [f"own\t{n % 2}\t\t{first}" for n, (first, _) in enumerate(PAIRS)]
        test = ["index\tsentence", *(f"{n}\t{first}" for n, (first, _) in enumerate(PAIRS))]
        write_lines(folder / "CoLA" / f"{split}.tsv", *(cola if labelled else test))
        for end in ("",) if split == "train" else ("_matched", "_mismatched"):
            write_lines(folder / "MNLI" / f"{split}{end}.tsv", *_lines("MNLI", labelled=labelled))
    write_paraphrases(folder / "MRPC")
    return folder


def write_paraphrases(folder: Path) -> None:
    """Write MRPC as its publisher ships it: two rows to train on, one to validate with.

    Args:
        folder: The task's.
    """
    rows = [f"{n % 2}\t{n}\t{n + 10}\t{first}\t{second}" for n, (first, second) in enumerate(PAIRS)]
    mark = "\ufeff"
    for part in ("train", "test"):
        write_lines(folder / f"msr_paraphrase_{part}.txt", mark + MRPC_HEADER, *rows)
    write_lines(folder / "dev_ids.tsv", "1\t11")


def _lines(task: str, *, labelled: bool) -> list[str]:
    """Give the lines of a file with a header."""
    starts = {
        "MNLI": MNLI_START,
        "QNLI": "index\tquestion\tsentence",
        "QQP": "id\tqid1\tqid2\tquestion1\tquestion2" if labelled else "id\tquestion1\tquestion2",
        "SST-2": "" if labelled else "index\tsentence",
        "STS-B": STSB_START,
    }
    ends = {"MNLI": "label1\tgold_label", "QQP": "is_duplicate", "STS-B": "score"}
    start = starts.get(task, "index\tsentence1\tsentence2")
    end = ends.get(task, "label")
    if task == "SST-2" and labelled:
        header, count = "sentence\tlabel", 0
    else:
        header = f"{start}\t{end}" if labelled else start
        count = len(start.split("\t")) - (1 if task == "SST-2" else 2)
    lines = [header]
    for number, (first, second) in enumerate(PAIRS):
        values = ["x"] * count + ([first] if task == "SST-2" else [first, second])
        lines.append("\t".join(values + (_labels(task, number) if labelled else [])))
    return lines


def _labels(task: str, number: int) -> list[str]:
    if task == "MNLI":
        return ["other", MNLI_LABELS[number % 3]]
    if task in {"QNLI", "RTE"}:
        return [ENTAILMENT[number % 2]]
    return [f"{number}.5" if task == "STS-B" else str(number % 2)]


def write_xnli(folder: Path, languages: tuple[str, ...]) -> Path:
    """Write XNLI: one file for all languages to test with, one a language to train on.

    Args:
        folder: Of its two parts.
        languages: To write.

    Returns:
        The same.
    """
    rows = [
        "\t".join([name, "neutral", *("p",) * 4, *pair, *("x",) * 11])
        for name in languages
        for pair in PAIRS
    ]
    for part in ("dev", "test"):
        write_lines(folder / "XNLI-1.0" / f"xnli.{part}.tsv", XNLI_HEADER, *rows)
    pairs = ["\t".join([*pair, "neutral"]) for pair in PAIRS]
    for name in languages:
        path = folder / "XNLI-MT-1.0" / "multinli" / f"multinli.train.{name}.tsv"
        write_lines(path, "premise\thypo\tlabel", *pairs)
    return folder


def write_tokenizers(data: Path) -> Path:
    """Save tiny tokenizers where those of the paper's models are looked for.

    Args:
        data: The folder of data sets.

    Returns:
        The same.
    """
    built = {
        "bert-base-uncased": tiny_tokenizers.wordpiece(),
        "roberta-base": tiny_tokenizers.byte_level(),
        "xlm-roberta": tiny_tokenizers.unigram(),
    }
    for name, tokenizer in built.items():
        folder = data / "tokenizers" / name
        folder.mkdir(parents=True)
        tokenizer.save(str(folder / "tokenizer.json"))
    return data
