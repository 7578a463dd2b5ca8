"""Tests of README.md and docs/*.md: every command runs, every link leads to a file."""
import ast
import errno
import os
import re
import shlex
import shutil
import subprocess
import sys

import idx_data
from support import png, test_canvas
from support.mnist_style import draw, place
from support.test_tools import HERE, SCRIPTS, TestCase, toy_images, write_toy, written_digit

import numpy as np

DOCUMENTS = [HERE / "README.md", *sorted((HERE / "docs").glob("*.md"))]


class TestReadme(TestCase):
    """What README.md and docs/*.md show and say."""

    def test_every_command_and_program_runs(self):
        """As it stands there, in the order of the text, on a small data set. What an exercise adds
        to a script is added to a copy."""
        for path in [*SCRIPTS, HERE / "pretrained.pt", HERE / "digit.png"]:
            shutil.copy(path, self.folder)
        shutil.copytree(HERE / "support", self.folder / "support")
        shutil.copytree(HERE / "docs", self.folder / "docs")
        write_toy(self.folder / "data", 600, 100)
        styled = np.stack([place(draw(written_digit(digit))) for digit in range(10)])
        for part, count in (("train", 600), ("t10k", 100)):  # digits, as infer.py looks for them
            idx_data.write_idx(self.folder / f"data/{part}-images-idx3-ubyte",
                               styled[np.arange(count) % 10])
        write_toy(self.folder / "fashion", 1000, 100)
        for part, count in (("train", 20), ("test", 5)):
            for label, name in enumerate(("cat", "dog")):
                for number, image in enumerate(toy_images(np.full(count, label), label)):
                    png.write_png(self.folder / f"folders/{part}/{name}/{number}.png", image)
        for i, image in enumerate(toy_images(np.arange(20) % 10)):
            png.write_png(self.folder / f"my-digits/train/{i % 10}/{i}.png", image)
        done = set()
        for document in DOCUMENTS:
            text = document.read_text(encoding="utf-8")
            for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
                if language == "python" and "import" in code:
                    self.runs([sys.executable, "-c", code])
                elif language == "python":
                    self.add_to_script(code)
                for command in shell_commands(code):
                    if command not in done:
                        done.add(command)
                        _, *arguments = shlex.split(command, comments=True)  # after "python"
                        self.runs([sys.executable, *arguments])
        self.assertGreater(len(done), 15)
        # The program in docs/data.md has drawn this very picture.
        drawn, ours = (png.read_png((folder / "digit.png").read_bytes())
                       for folder in (self.folder, HERE))
        self.assertTrue((drawn == ours).all())

    def runs(self, command: list[str]) -> None:
        if "--draw" in command:  # it goes on until Ctrl-C
            with self.subTest(command):
                process, _ = test_canvas.start(self.folder, *command[3:])
                self.assertEqual(test_canvas.stop(process)[0], 0)
            return
        with self.subTest(command):
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True,
                                  timeout=170, stdin=subprocess.DEVNULL)
            self.assertEqual(done.returncode, 0, done.stderr)

    def add_to_script(self, code: str) -> None:
        """Put a network into model.py and its MODELS, or a recipe into RECIPES in train.py."""
        if code.startswith("def "):
            name = code[4 : code.index("(")]
            script, table, added = "model.py", "MODELS = {", f'"{name}": {name}, '
            before = f"{code}\n\n"
        else:
            script, table, added = "train.py", "RECIPES = {\n", code
            before = ""
        path = self.folder / script
        text = path.read_text(encoding="utf-8")
        self.assertEqual(text.count(table), 1)
        path.write_text(text.replace(table, before + table + added), encoding="utf-8")

    def test_links_lead_to_files(self):
        for document in DOCUMENTS:
            text = document.read_text(encoding="utf-8")
            for link in re.findall(r"(?:\]\(|src=\")([^)\"]+)", text):
                with self.subTest(f"{document.name}: {link}"):
                    self.assertTrue((document.parent / link).is_file())

    def test_messages_are_those_of_the_code(self):
        """Each message of docs/messages.md is in the code; `...` stands for what differs."""
        texts = [os.strerror(errno.ENOSPC)]
        for path in [*SCRIPTS, *(HERE / "support").glob("*.py")]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [getattr(part, "value", "") for part in node.values]
                    texts.append("...".join(part for part in parts if isinstance(part, str)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
        rows = re.findall(r"^\| (`.+?`) \|", (HERE / "docs/messages.md").read_text("utf-8"), re.M)
        self.assertGreater(len(rows), 60)
        for message in re.findall(r"`(.+?)`", "\n".join(rows)):
            pattern = ".*".join(map(re.escape, message.split("...")))
            with self.subTest(message):
                self.assertTrue(any(re.search(pattern, text, re.S) for text in texts))


def shell_commands(code: str) -> list[str]:
    """The commands of a code block that run a script of this project, without their comments."""
    commands = []
    for line in code.splitlines():
        line = line.removeprefix("$ ").removeprefix("pip install -r requirements.txt && ")
        if re.match(r"python \w+\.py", line) and line != "python test_all.py":  # this very program
            commands.append(line)
    return commands
