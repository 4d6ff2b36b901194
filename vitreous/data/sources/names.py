"""Names in a source: which ones mean a split, and when two names are the same class."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from vitreous.support.text import listed

TRAIN, VALIDATION, TEST = "train", "validation", "test"
LONGEST_COMPOUND = 40  # letters
SPLITS = {
    TRAIN: "train training tr trn",
    VALIDATION: "val valid validation validate validating dev eval evaluation",
    TEST: "test testing tests tst holdout",
}
# Used only next to a folder of another split: they have other meanings, or are words of other languages.
WEAK = {"tr", "dev", "eval", "evaluation", "holdout", "tests"}
WEAK_SPLITS = {
    TRAIN: "latih pelatihan entrenamiento entrenar treino treinamento entraînement apprentissage addestramento "
    "allenamento lernen szkolenie treningowy uczenie eğitim обучение обучающая обучающий тренировка 训练 訓練 学習 "
    "훈련 학습",
    VALIDATION: "vl va validasi validación validação validazione validierung walidacja doğrulama валидация 验证 驗證 "
    "検証 검증",
    TEST: "te ts uji pengujian prueba pruebas teste testes prova testowy тест тестирование 测试 測試 テスト 테스트",
}
# Words that may stand next to one for a split: "train_images", "val-set", "trainingsdaten".
FILLERS = (
    "set sets image images img imgs data dataset datasets photo photos picture pictures pic pics split splits folder "
    "folders dir sample samples file files jpg jpeg jpegs png webp part shard shards classes cls v x px "
    "datos imágenes imagens dados gambar daten bilder sdaten 集 集合 数据 數據 数据集 图片 图像 データ 데이터"
)

# Words of parts that are neither splits nor classes.
GENERIC = (
    "all batch batches cam camera chunk chunks clip day device fold folds frame frames group groups hospital location "
    "misc month other others round run runs scan scans series session sessions site source station subject subset "
    "subsets trial unknown user video visit week writer year"
)
CHUNKS = (
    "annotations batch batches chunk chunks data dataset fold folds image images img imgs labels mask masks set sets "
    "shard shards split splits subset subsets"
)
# Folders of pictures, and of what belongs to each of them: masks, boxes or depth. Neither are classes.
PICTURES = "hr input inputs rgb source original originals"
OUTPUTS = (
    "annot annotation annotations annots bbox bboxes depth disparity edge edges groundtruth groundtruths gt label "
    "labels lr mask masks matte mattes normals output outputs segmentation segmentations seg target targets trimap "
    "trimaps truth"
)
BESIDE = "class color ground instance instances object objects truth"  # other words of such names
EVALUATION = {"eval", "evaluation"}  # the validation split, or the test split next to one called "dev" or "val"
UNLABELED = "pred predict prediction predictions submission submissions unlabeled"


def _folded(text: str) -> str:
    """Lower case without accents, so that é, É and e are the same letter."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def _table(*tables: dict[str, str]) -> dict[str, str]:
    return {_folded(word): split for table in tables for split, words in table.items() for word in words.split()}


WORDS, ALL_WORDS = _table(SPLITS), _table(SPLITS, WEAK_SPLITS)
STRONG = WORDS.keys() - WEAK
FILLER_WORDS = frozenset(_folded(FILLERS).split())
PICTURE_WORDS, OUTPUT_WORDS = frozenset(PICTURES.split()), frozenset(OUTPUTS.split())
ROLE_WORDS = PICTURE_WORDS | OUTPUT_WORDS | FILLER_WORDS | frozenset(BESIDE.split()) | WORDS.keys()
UNLABELED_WORDS = frozenset((UNLABELED + " " + UNLABELED.replace("el", "ell")).split())  # the British spelling too
GENERIC_WORDS, CHUNK_WORDS = frozenset(GENERIC.split()), frozenset(CHUNKS.split())
MEANINGS = {frozenset({split}): split for split in (TRAIN, VALIDATION, TEST)} | {
    frozenset({TRAIN, VALIDATION}): TRAIN  # "trainval": both together, next to a test split
}


def split_of(name: str) -> str | None:
    """The split that a folder, archive or cell of a table names: "train", "validation" or "test"; None for others.

    Case, digits, separators and words such as "images" or "set" make no difference: "Training", "test_set",
    "val2017", "imgsTrain" and "trainval" name splits. A name with any other word, such as "test tube", does not.
    """
    meaning, others = _meaning(name, weak=False)
    return None if others else meaning


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """The split of each name that means one, with the other names next to it taken into account.

    If they are a train split and another, then words of other languages ("latih", "uji"), abbreviations ("tr", "te")
    and names that share their other words ("flowers_train", "flowers_test") count too; words such as "dev" or "eval"
    count only then.
    """
    names = list(names)
    groups: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        meaning, others = _meaning(name, weak=True)
        if meaning:
            groups[others][name] = meaning
    complete = {
        others: group for others, group in groups.items() if TRAIN in group.values() and len(set(group.values())) > 1
    }
    if complete:  # without other words if there are any; several sets, of several words, are all returned
        every = {name: split for group in complete.values() for name, split in group.items()}
        found = complete.get((), every)
        return found | evaluations(found)
    plain = {name: split for name in names if (split := split_of(name))}
    return {name: split for name, split in plain.items() if any(part in STRONG for part in _parts(name))}


def evaluations(splits: Mapping[str, str | None]) -> dict[str, str]:
    """The names such as "eval" that mean test: next to one such as "dev" for validation, and none for test."""
    names = {name for name, split in splits.items() if split == VALIDATION and EVALUATION.intersection(_parts(name))}
    others = {split for name, split in splits.items() if name not in names}
    return dict.fromkeys(names, TEST) if VALIDATION in others and TEST not in others else {}


def notes_on_evaluation(splits: Mapping[str, str | None]) -> list[str]:
    """A note if names such as "eval" are used as the test split: of one folder, or of a thousand shards."""
    names = [repr(name) for name, split in splits.items() if split == TEST and EVALUATION.intersection(_parts(name))]
    return [f"{listed(names)} {'is' if len(names) == 1 else 'are'} used as the test split"] if names else []


def suggests_split(name: str) -> bool:
    """Whether a word of the name, perhaps among others, names a split."""
    return any(part in WORDS for part in _parts(name))


def is_generic(name: str) -> bool:
    """Whether a name is made of numbers, single letters and words such as "images", "fold" or "batch" alone."""
    return all(len(part) == 1 or part in FILLER_WORDS or part in GENERIC_WORDS for part in _parts(name))


def is_chunk(name: str) -> bool:
    """Whether a name is made of words such as "fold" or "images", and of numbers and single letters."""
    parts = _parts(name)
    return any(part in CHUNK_WORDS for part in parts) and all(len(part) == 1 or part in CHUNK_WORDS for part in parts)


def are_chunks(names: Iterable[str]) -> bool:
    """Whether names are numbered parts of one set: they differ in digits and letters alone, as set_images_part_1."""
    words = [tuple(part for part in _parts(name) if len(part) > 1) for name in names]
    return len(set(words)) == 1 and len(words) > 1 and any(part in CHUNK_WORDS for part in words[0])


def is_for_prediction(name: str) -> bool:
    """Whether a name says that its images are for predictions: "pred", "unlabeled_images"."""
    parts = _parts(name)
    known = all(part in UNLABELED_WORDS or part in FILLER_WORDS or part in WORDS for part in parts)
    return known and any(part in UNLABELED_WORDS for part in parts)


def role_of(name: str) -> str:
    """What the images in a folder are to those in others: "picture", "output" such as masks, or "" for a class."""
    parts = _parts(name)
    if not parts or not all(part in ROLE_WORDS for part in parts):
        return ""
    if any(part in OUTPUT_WORDS for part in parts):
        return "output"
    is_picture = any(part in PICTURE_WORDS or part in FILLER_WORDS for part in parts)
    return "picture" if is_picture else ""


def has_output_word(name: str) -> bool:
    """Whether a word of the name, perhaps among others, is one for masks, boxes or depth."""
    return any(part in OUTPUT_WORDS for part in _parts(name))


def is_unlabeled(name: str) -> bool:
    """Whether a folder's name says that its images have no classes: "unknown", "images", "test"."""
    parts = _parts(name)
    known = all(part in FILLER_WORDS or part in GENERIC_WORDS or part.startswith("unlabel") for part in parts)
    return known or suggests_split(name)


def normalized(name: str) -> str:
    """A class name with accents composed (NFC), so that é is the same however a file system wrote it."""
    return unicodedata.normalize("NFC", name)


def distinct(classes: Iterable[str | Sequence[str]]) -> list[str]:
    """One name per class: the first of its synonyms, all of them where two classes share it, and then a number."""
    synonyms = [(names,) if isinstance(names, str) else tuple(names) for names in classes]
    for choose in (lambda names: names[0], ", ".join):
        names = [choose(each) for each in synonyms]
        counts = Counter(names)
        synonyms = [each if counts[name] > 1 else (name,) for name, each in zip(names, synonyms, strict=True)]
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name} ({seen[name]})" if counts[name] > 1 else name)
    return result


def skeleton(name: str) -> str:
    """A class name without case, spaces, underscores and hyphens, which people vary by mistake; "-1" keeps its sign."""
    return re.sub(r"[\s_]+|(?<=\w)-+|-+(?!\d)", "", normalized(name)).casefold()


def simplified(name: str) -> str:
    """A class name without what is easily overlooked: case, and spaces around or repeated in it."""
    return " ".join(normalized(name).casefold().split())


def _meaning(name: str, weak: bool) -> tuple[str | None, tuple[str, ...]]:
    """The split that the words of a name agree on, and its words that are neither for splits nor fillers."""
    words = ALL_WORDS if weak else WORDS
    parts = _parts(name)
    meaning = MEANINGS.get(frozenset(words[part] for part in parts if part in words))
    return meaning, tuple(part for part in parts if part not in words and part not in FILLER_WORDS)


@lru_cache(4096)
def _parts(name: str) -> tuple[str, ...]:
    """The words of a name, folded, without digits; words that are written together are separated."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    words = re.split(r"[\W\d_]+", spaced)
    return tuple(part for word in words if word for part in _compound(_folded(word)))


@lru_cache(4096)
def _compound(word: str) -> tuple[str, ...]:
    """A word separated into a word for a split and others that are known, or the whole word."""
    if word in ALL_WORDS or word in FILLER_WORDS or len(word) > LONGEST_COMPOUND:
        return (word,)
    for at in range(len(word) - 1, 0, -1):
        first, rest = word[:at], word[at:]
        if min(len(first), len(rest)) < 3 and word.isascii():
            continue
        if first in ALL_WORDS or first in FILLER_WORDS:
            following = _compound(rest)
            if all(part in ALL_WORDS or part in FILLER_WORDS for part in following):
                return (first, *following)
    return (word,)
