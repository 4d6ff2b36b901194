"""Names that mean a split, alone or among others, and names that mean the same class."""

import time

import pytest

from vitreous.data.sources.names import (
    evaluations,
    is_chunk,
    is_generic,
    is_unlabeled,
    normalized,
    notes_on_evaluation,
    simplified,
    split_of,
    splits_among,
)

SPLITS = {
    "train": "train Train TRAIN training Training training_set TrainSet trainset train_images images-train imgs_train "
    "imgsTrain trainval train_val train2017 train_001 train.v2 traindata training-data Train_Images_224x224 tr trn",
    "validation": "val Val valid VALIDATION validation_set val2017 valset validate dev dev_set eval imgs_val",
    "test": "test Test testing Testing test_set TestSet test-images test1 testdata holdout tst test_set_2",
}
NO_SPLITS = (
    "test tube|Training shoes|trainer|contest|value|invalid|evaluate me|train station|testament|developer|cat|0|2019|"
    "latest|retrain|strain|a|train_test_split|images|set|validity|trains|latih|uji|fold1||é|test_cat"
)


@pytest.mark.parametrize(
    ("split", "name"), [(split, name) for split, names in SPLITS.items() for name in names.split()]
)
def test_a_split_is_recognized_in_any_case_and_with_any_ending(split, name):
    assert split_of(name) == split
    assert split_of(f" {name.upper()} " if name.islower() else name) == split


@pytest.mark.parametrize("name", NO_SPLITS.split("|"))
def test_a_name_with_another_word_is_not_a_split(name):
    assert split_of(name) is None


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("latih", "validasi", "uji"),
        ("entrenamiento", "validación", "prueba"),
        ("Treino", "validac\u0327a\u0303o", "Teste"),
        ("entraînement", "val", "test"),
        ("apprentissage", "validation", "test"),
        ("Trainingsdaten", "Validierungsdaten", "Testdaten"),
        ("训练集", "验证集", "测试集"),
        ("обучение", "валидация", "тест"),
        ("学習データ", "検証データ", "テストデータ"),
        ("훈련", "검증", "테스트"),
        ("tr", "va", "te"),
        ("flowers_train", "flowers_val", "flowers_test"),
        ("train_raw", "val_raw", "test_raw"),
        ("flowersTrain", "flowersVal", "flowersTest"),
        ("train", "dev", "holdout"),
    ],
)
def test_other_words_are_splits_next_to_another_split(train, validation, test):
    expected = {train: "train", validation: "validation", test: "test"}
    assert splits_among([*expected, "other", "extra images"]) == expected
    assert splits_among([train, test]) == {train: "train", test: "test"}
    if split_of(train) != "train":
        assert splits_among([train, "cat"]) == {}


@pytest.mark.parametrize("names", [["dev", "prod"], ["tr", "de", "fr"], ["eval", "a"], ["flowers_test", "flowers"], []])
def test_words_with_other_meanings_are_splits_only_next_to_another(names):
    assert splits_among(names) == {}


def test_plain_names_come_first_and_several_sets_are_all_returned():
    assert splits_among(["train", "test", "old_train", "old_test"]) == {"train": "train", "test": "test"}
    pairs = {f"{name}_{split}": split for name in ("a1b", "cats") for split in ("train", "test")}
    assert splits_among(pairs) == pairs
    assert splits_among(["train", "bus"]) == {"train": "train"}
    assert splits_among(["val"]) == {"val": "validation"}


def test_names_of_parts_are_not_names_of_classes():
    assert all(map(is_chunk, ["fold1", "batch_2", "images", "set_a", "Masks"]))
    assert not any(map(is_chunk, ["cat", "0", "class1", "a", "part_b", ""]))
    assert all(map(is_generic, ["2019", "session 3", "fold1", "site-B", "other"]))
    assert not any(map(is_generic, ["cat", "siamese", "rust_2"]))
    assert all(map(is_unlabeled, ["unknown", "images", "test", "unlabeled_1", "asl_test"]))
    assert not any(map(is_unlabeled, ["zebra", "cat images of fish"]))


def test_accents_case_and_spaces():
    assert normalized("cafe\u0301") == "caf\u00e9"
    assert normalized("Cat ") == "Cat "
    assert simplified(" Black  Cat ") == simplified("black cat") == "black cat"
    assert simplified("e\u0301") == simplified("É")
    assert simplified("cat") != simplified("cats")


def test_long_and_strange_names_are_read_at_once():
    begin = time.perf_counter()
    for name in ("img" * 80 + "q", "setsdata" * 30, "\x00\n", "\udce9", "a_" * 120, "x" * 255):
        split_of(name)
        splits_among([name, "train", "test"])
    assert time.perf_counter() - begin < 1


def test_eval_is_test_only_next_to_another_for_validation():
    assert splits_among(["train", "dev", "Eval"]) == {"train": "train", "dev": "validation", "Eval": "test"}
    assert splits_among(["flowers_train", "flowers_val", "flowers_evaluation"])["flowers_evaluation"] == "test"
    assert splits_among(["train", "eval"]) == {"train": "train", "eval": "validation"}
    for names in (["train", "eval", "evaluation"], ["train", "dev", "eval", "test"]):
        assert evaluations({name: split_of(name) for name in names}) == {}
    assert notes_on_evaluation({"eval": "test", "test": "test", "dev": "validation"}) == [
        "'eval' is used as the test split"
    ]
    many = notes_on_evaluation({f"eval-{number}": "test" for number in range(1000)})
    assert len(many) == 1
    assert many[0].endswith("'eval-7' … and 992 more are used as the test split")
