"""The pictures and the page: read back by parsers, and compared with the figures behind them."""
import base64
import html.parser
import math
import re
import unittest
from xml.etree import ElementTree

import evaluate
import idx_data
import model
from support import png, report, result_table
from support.test_tools import TestCase, call, some_digits, some_net, some_result, write_digits

import numpy as np
import torch

SVG = "{http://www.w3.org/2000/svg}"


def draw(net: model.Network, result=None) -> dict[str, str]:
    """All the pictures of a network, for noise and a made-up result."""
    result = result or some_result(net.classes, 4 * net.classes)
    return evaluate.draw(net, result, some_digits(net.classes).test_images, {1, 2})


def numbers(count: int) -> list[str]:
    return [str(label) for label in range(count)]


def texts(picture: str) -> list[str]:
    """The text elements of a picture, without the title and the explanation above its parts."""
    group = ElementTree.fromstring(picture).find(f"{SVG}g")
    return [element.text for element in group.iter(f"{SVG}text")]


def description(picture: str) -> str:
    return ElementTree.fromstring(picture).find(f"{SVG}desc").text


def titles(picture: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(picture).iter(f"{SVG}title")]


def pixels(picture: str) -> list[np.ndarray]:
    """The images inside a picture, decoded: (H, W, 4) uint8 each."""
    found = []
    for element in ElementTree.fromstring(picture).iter(f"{SVG}image"):
        kind, data = element.get("href").split(",")
        assert kind == "data:image/png;base64"
        found.append(png.read_png(base64.b64decode(data)))
    return found


class TestPictures(unittest.TestCase):
    def check(self, picture: str) -> None:
        """A picture is XML with a title and a description, fetches nothing; no text leaves it."""
        root = ElementTree.fromstring(picture)
        self.assertEqual(root.get("role"), "img")
        title = root.find(f"{SVG}title")
        words = root.find(f"{SVG}desc")
        self.assertTrue(title.text and words.text)
        self.assertEqual(root.get("aria-labelledby").split(), [title.get("id"), words.get("id")])
        self.assertEqual(re.findall(r"https?://[^\"]*", picture), ["http://www.w3.org/2000/svg"])
        self.assertNotIn("url(", picture)
        for element in root.iter():
            self.assertTrue(element.get("href", "data:image/png").startswith("data:image/png"))
            self.assertNotIn(element.tag, (f"{SVG}script", f"{SVG}foreignObject"))
        for element in root.iter(f"{SVG}text"):
            if element.get("transform"):
                continue
            size, x = float(element.get("font-size")), float(element.get("x"))
            self.assertGreaterEqual(size, 9)
            length = float(element.get("textLength", 0.56 * size * len(element.text)))
            left = {"start": x, "middle": x - length / 2,
                    "end": x - length}[element.get("text-anchor")]
            self.assertGreater(left, -2, element.text)
            self.assertLess(left + length, float(root.get("width")) + 2, element.text)

    def test_every_picture_for_every_class_count(self):
        for classes in (2, 10, 26, 47):
            kept = torch.zeros(classes, 4, 28, 28, dtype=torch.uint8)
            for name, picture in draw(some_net(classes=classes, samples=kept)).items():
                with self.subTest(classes=classes, picture=name):
                    self.check(picture)

    def test_every_network(self):
        for name in model.MODELS:
            kept = torch.zeros(10, 4, 28, 28, dtype=torch.uint8)
            for picture in draw(some_net(name, samples=kept)).values():
                with self.subTest(network=name):
                    self.check(picture)

    def test_curves(self):
        for epochs in (1, 2, 30):
            net = some_net(epochs=epochs)
            picture = draw(net)["curves"]
            self.check(picture)
            found = [re.fullmatch(r"epoch (\d+), (\w+) (\w+) (\S+)", t) for t in titles(picture)]
            parts = {"training": "train", "validation": "val"}
            found = {(int(m[1]), f"{parts[m[2]]}_{m[3]}"): float(m[4]) for m in found if m}
            self.assertEqual(len(found), 4 * epochs)
            for (epoch, key), value in found.items():
                self.assertAlmostEqual(value, net.history[epoch - 1][key], places=5)
            best = min(epochs, 5)
            self.assertIn(f"Best epoch {best}", description(picture))
            self.assertIn(f"accuracy {net.history[best - 1]['val_accuracy']:.2%}",
                          description(picture))

    def test_curves_place_points_by_value(self):
        root = ElementTree.fromstring(draw(some_net(epochs=5))["curves"])
        marks = {e.text: float(e.get("y")) - 4 for e in root.iter(f"{SVG}text")
                 if e.text.endswith("%")}
        low, high = min(marks, key=lambda m: float(m[:-1])), max(marks, key=lambda m: float(m[:-1]))
        slope = (marks[high] - marks[low]) / (float(high[:-1]) - float(low[:-1]))
        for circle in root.iter(f"{SVG}circle"):
            words = circle[0].text.split()
            if words[3] == "accuracy":
                expected = marks[low] + slope * (100 * float(words[4]) - float(low[:-1]))
                self.assertAlmostEqual(float(circle.get("cy")), expected, delta=0.5)

    def test_early_stopping_is_told_from_an_interrupted_run(self):
        run = {"settings": {"epochs": 9, "patience": 2, "best_by": "loss"}}
        history = some_net(epochs=4).history
        self.assertIn("Saved after epoch 4 of 9", report.curves("small", history, run))
        self.assertIn("Best epoch 4, by validation loss", report.curves("small", history, run))
        run["result"] = {"test_accuracy": 0.9}
        self.assertIn("Stopped early after epoch 4 of 9", report.curves("small", history, run))
        self.assertIn("no history", report.curves("small", [], {}))

    def test_losses_are_labelled_at_round_numbers_inside_the_axis(self):
        for low, top in ((0.01, 1.0), (0.5, 0.8), (0.52, 0.56), (1e-6, 3.0)):
            labels = report.loss_labels(math.log10(low), math.log10(top))
            self.assertGreaterEqual(len(labels), 2)
            for words, place in labels:
                self.assertAlmostEqual(math.log10(float(words)), place)
                self.assertTrue(low <= float(words) <= top)
                self.assertLessEqual(len(words.replace("0", "").replace(".", "")), 5)

    def test_confusion_matrix(self):
        confusion = some_result(10, 50_000).confusion
        picture = report.confusion_matrix(confusion, numbers(len(confusion)))
        shown = [int(word) for word in texts(picture) if word.isdigit()]
        labels = [*range(10), *range(10)]  # of rows and columns
        counts = [count for count in confusion.flatten().tolist() if count]
        self.assertEqual(sorted(shown), sorted(counts + labels))
        for classes in (2, 26, 47):
            confusion = some_result(classes, 2000).confusion
            picture = report.confusion_matrix(confusion, numbers(len(confusion)))
            cells = [re.fullmatch(r"true (\d+), predicted (\d+): (\d+)", t)
                     for t in titles(picture)]
            cells = {(int(m[1]), int(m[2])): int(m[3]) for m in cells if m}
            self.assertEqual(cells, {(i, j): count for i, row in enumerate(confusion.tolist())
                                     for j, count in enumerate(row) if count})

    def test_numbers_fit_their_cells(self):
        for count in (9, 9_999, 123_456):
            picture = report.confusion_matrix(torch.eye(10, dtype=torch.int64) * count,
                                              numbers(10))
            root = ElementTree.fromstring(picture)
            cell = next(e for e in root.iter(f"{SVG}rect") if e.find(f"{SVG}title") is not None)
            for number in [e for e in root.iter(f"{SVG}text") if e.text == str(count)]:
                length = 0.64 * float(number.get("font-size")) * len(number.text)
                self.assertLess(length, float(cell.get("width")) + 1)

    def test_names_of_classes(self):
        """In every picture and table that shows classes; long ones are shortened, and whole in a
        tooltip; nothing in them is markup."""
        net = some_net(classes=3)
        net.labels = ["<b>ankle & boot</b>", "bag", "a very long name of a class of things"]
        net.run["samples"] = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
        result = some_result(3, 12, accuracy=0.2)
        result.names = net.labels
        drawn = draw(net, result)
        for name in ("confusion", "samples", "mistakes", "activations"):
            self.check(drawn[name])
            words = "".join(ElementTree.fromstring(drawn[name]).find(f"{SVG}g").itertext())
            shown = ("<b>ankl…ot</b>", "bag", "a very …things")
            self.assertTrue(any(label in words for label in shown), name)
        for name in ("samples", "confusion"):
            words = ElementTree.fromstring(drawn[name]).find(f"{SVG}g").itertext()
            self.assertTrue({"bag", "a very …things", net.labels[2]} <= set(words), name)
        text = result_table.text_report([["model"]], result, set())
        for shown in ("<b>ankle & boot</b>", "bag", "a very long n…things"):
            self.assertIn(shown, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_mistakes(self):
        images, result = some_digits().test_images, some_result(10, 40, accuracy=0.6)
        wrong = result.mistakes
        answers = result.answers(wrong)
        picture = report.mistakes(images, answers, len(wrong), {wrong[1], 999}, numbers(10))
        expected = []
        for answer in answers:
            expected += [f"{answer.predicted} / {answer.true}", f"{answer.probability:.1%}",
                         f"#{answer.number}"]
        self.assertEqual(texts(picture), expected)
        self.assertEqual(picture.count("stroke-dasharray"), 1)
        self.assertIn("label wrong (1)", description(picture))
        for seen, i in zip(pixels(picture), wrong):
            np.testing.assert_array_equal(seen[..., 0], images[i].numpy())
        self.assertEqual(report.mistakes(images, [], 0, set(), numbers(10)),
                         "It reads all 40 images right: there are no mistakes to show.")

    def test_samples_are_those_of_the_checkpoint(self):
        self.assertIn("no sample", draw(some_net())["samples"])
        for classes in (10, 26):
            net = some_net(classes=classes)
            kept = torch.arange(classes * 4 * 28 * 28).reshape(classes, 4, 28, 28).byte()
            net.run["samples"] = kept
            picture = draw(net)["samples"]
            self.check(picture)
            shown = pixels(picture)
            self.assertEqual(len(shown), 4 * classes)
            np.testing.assert_array_equal(shown[5][..., 1], kept[1, 1].numpy())

    def test_filters_have_the_signs_of_the_weights(self):
        net = some_net("lenet")
        picture = report.filters(net)
        weights = net.conv1.weight[:, 0].detach()
        shown = pixels(picture)
        self.assertEqual(len(shown), len(weights))
        for seen, filter_ in zip(shown, weights):
            blue = seen[..., 2].astype(int) > seen[..., 0]
            np.testing.assert_array_equal(blue, filter_.numpy() < 0)
        self.assertIn(f"+{weights.abs().max():.2f}", description(picture))
        self.assertIn("no convolution", report.filters(torch.nn.Linear(2, 2)))

    def test_stages_are_what_the_layers_give(self):
        net, image = some_net("lenet"), some_digits().test_images[:1]
        x = idx_data.standardise(image, net.mean, net.std)
        found = report.stages(net, x)
        self.assertEqual([name for name, _ in found], ["maxpool1", "maxpool2", "linear1"])
        with torch.inference_mode():
            pooled = net.maxpool1(net.relu1(net.conv1(x)))
            pooled2 = net.maxpool2(net.relu2(net.conv2(pooled)))
            numbers = net.linear1(pooled2.flatten(1))
        for (_, maps), expected in zip(found, (pooled, pooled2, numbers)):
            torch.testing.assert_close(maps, expected[0])

    def test_activations_name_the_answer(self):
        net, images = some_net(), some_digits().test_images
        picture = draw(net)["activations"]
        chances = evaluate.predict(net, images)[0].exp()
        self.assertIn(f"read as {int(chances.argmax())}, probability {chances.max():.1%}",
                      texts(picture))
        self.assertEqual(pixels(picture)[0][..., 0].tolist(), images[0].tolist())


class TestText(unittest.TestCase):
    def test_aligned(self):
        self.assertEqual(result_table.aligned([["", "b"], ["aaa", "1"], ["c", "22"]]),
                         "      b\naaa   1\nc    22")

    def test_run_tables(self):
        run = {"recipe": "small", "settings": {"val_fraction": 0.05, "augment": {"shift": 2}},
               "result": {"test_accuracy": 0.99}, "samples": torch.zeros(3)}
        self.assertEqual(report.run_tables(run), {
            "Run": [["", ""], ["recipe", "small"]],
            "Settings": [["", ""], ["val fraction", "0.05"], ["augment", "shift 2"]],
            "Result": [["", ""], ["test accuracy", "0.99"]]})
        nested = {}
        nested["itself"] = nested
        report.run_tables({"recipe": nested})  # ends


class Balanced(html.parser.HTMLParser):
    """Checks that every element that is opened is closed; gathers the text and the elements."""
    def __init__(self):
        super().__init__()
        self.open, self.words, self.starts = [], [], []

    def handle_starttag(self, name, attributes):
        self.starts.append((name, dict(attributes)))
        self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.starts.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name, name

    def handle_data(self, data):
        self.words.append(data)


class TestPage(TestCase):
    """The report as evaluate.py writes it."""

    def setUp(self):
        super().setUp()
        self.digits = some_digits(each=8)
        write_digits(self.digits, self.folder / "data")
        self.net = some_net(samples=self.digits.train_images[:40].reshape(10, 4, 28, 28))
        self.report = self.folder / "report"

    def write(self, net: model.Network, *more, name="net.pt") -> tuple[str, str]:
        """Run evaluate.py on a checkpoint of the network: standard output and standard error."""
        model.save(net, self.folder / name)
        return self.evaluate(self.folder / name, *more)

    def evaluate(self, *arguments) -> tuple[str, str]:
        return call(evaluate, *arguments, "--data", self.folder / "data", "--device", "cpu",
                    "--report", self.report)

    def parsed(self) -> Balanced:
        page = Balanced()
        page.feed((self.report / "index.html").read_text(encoding="utf-8"))
        page.close()
        self.assertEqual(page.open, [])
        return page

    def test_it_holds_the_measured_figures(self):
        out, _ = self.write(self.net)
        page = self.parsed()
        result = evaluate.evaluate(self.net, self.digits.test_images, self.digits.test_labels)
        for words in (f"{result.loss:.4f}", f"{result.calibration_error:.2%}",
                      f"{result.accuracy:.2%} ± {result.half_interval:.2%}"):
            self.assertIn(words, page.words)
            self.assertIn(words, out)
        for words in ("python train.py --seed 7", "Testbox x86", "9.9.9", "4.5"):
            self.assertIn(words, page.words)
        self.assertIn(model.summary(self.net), page.words)
        for row in result_table.score_table(result):
            self.assertTrue(set(row) <= set(page.words))

    def test_it_holds_the_pictures_and_fetches_nothing(self):
        self.write(self.net)
        self.assertEqual(sorted(path.name for path in self.report.iterdir()),
                         sorted([f"{name}.svg" for name in evaluate.PICTURES] + ["index.html"]))
        whole = (self.report / "index.html").read_text(encoding="utf-8")
        for name in evaluate.PICTURES:
            picture = (self.report / f"{name}.svg").read_text(encoding="utf-8")
            self.assertIn(picture, whole)
        page = self.parsed()
        for _, attributes in page.starts:
            self.assertNotIn("src", attributes)
            self.assertTrue(attributes.get("href", "data:").startswith("data:"))
        self.assertEqual(set(re.findall(r"https?://[^\"]*", whole)), {"http://www.w3.org/2000/svg"})
        names = [attributes["id"] for _, attributes in page.starts if "id" in attributes]
        self.assertEqual(len(names), len(set(names)))
        self.assertIn("prefers-color-scheme:dark", whole)

    def test_several_models(self):
        for seed in (0, 1):
            model.save(some_net(seed=seed), self.folder / f"{seed}.pt")
        out, _ = self.evaluate(self.folder / "0.pt", self.folder / "1.pt")
        self.assertIn("their mean", out)
        page = self.parsed()
        self.assertIn("their mean", page.words)
        self.assertTrue(any("2 models together" in words for words in page.words))

    def test_pictures_alone(self):
        self.write(self.net, "--pictures", "curves,filters")
        self.assertEqual(sorted(path.name for path in self.report.iterdir()),
                         ["curves.svg", "filters.svg"])

    def test_bare_weights_and_an_old_picture(self):
        torch.save(self.net.state_dict(), self.folder / "bare.pt")
        self.write(self.net)
        self.assertTrue((self.report / "curves.svg").exists())
        _, err = self.evaluate(self.folder / "bare.pt", "--model", "small")
        self.assertFalse((self.report / "curves.svg").exists())
        self.assertIn("no history", err)
        self.parsed()

    def test_hostile_text_stays_text(self):
        net = some_net(command="<script>\x1b[2J\x00&\ud800")
        out, _ = self.write(net, name="<b>.pt")
        page = (self.report / "index.html").read_text(encoding="utf-8")
        self.assertNotIn("<script>", page)
        self.assertNotIn("\x1b", page + out)
        self.assertIn("&lt;b&gt;.pt", page)
        self.assertTrue(any("<script>" in words for words in self.parsed().words))
