// sluice-confine around a real Node: it can do its work in its folder, and nothing else.
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "capture_fixture.h"
#include "capture_reader.h"
#include "check.h"

namespace {

const std::string kProgram = std::string(SLUICE_BUILD_FOLDER) + "/sluice-confine";

struct Outcome {
  int status;
  std::string output;
};

Outcome run(const std::vector<std::string>& command) {
  int pipes[2];
  CHECK(pipe(pipes) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    dup2(pipes[1], 1);
    close(pipes[0]);
    close(pipes[1]);
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    execvp(words[0], words.data());
    _exit(99);
  }
  close(pipes[1]);
  Outcome outcome{};
  char bytes[4096];
  for (ssize_t length; (length = read(pipes[0], bytes, sizeof bytes)) > 0;) outcome.output.append(bytes, static_cast<std::size_t>(length));
  close(pipes[0]);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

// Node runs `script`, whose `report(name, function)` prints "name ok" or "name CODE".
Outcome node(const std::vector<std::string>& options, const std::string& script) {
  const std::string prelude =
      "const fs = require('fs'), net = require('net'), dgram = require('dgram');"
      "const report = (name, act) => { try { act(); console.log(name, 'ok') } catch (error) { console.log(name, error.code) } };";
  std::vector<std::string> command{kProgram};
  command.insert(command.end(), options.begin(), options.end());
  command.insert(command.end(), {"--", "node", "-e", prelude + script});
  return run(command);
}

std::string status(const std::string& output, const std::string& key) {
  const std::size_t at = output.find(key + ":\t");
  CHECK(at != std::string::npos);
  return output.substr(at + key.size() + 2, output.find('\n', at) - at - key.size() - 2);
}

}  // namespace

int main() {
  const Folder inside, outside;
  std::ofstream(outside.path() + "/there") << "seen";
  CHECK(chmod(outside.path().c_str(), 0777) == 0);

  // In its folder: make, append, rename, truncate, remove, as SQLite does with its WAL. Outside: look only.
  const std::string work = inside.path(), other = outside.path();
  const Outcome files = node({"--write", work},
      "const d = '" + work + "', o = '" + other + "';"
      "report('write', () => fs.writeFileSync(d + '/a', 'x'));"
      "report('append', () => fs.appendFileSync(d + '/a', 'y'));"
      "report('truncate', () => fs.truncateSync(d + '/a', 1));"
      "report('folder', () => fs.mkdirSync(d + '/sub'));"
      "report('rename', () => fs.renameSync(d + '/a', d + '/sub/b'));"
      "report('remove', () => fs.unlinkSync(d + '/sub/b'));"
      "report('null', () => fs.writeFileSync('/dev/null', 'x'));"
      "report('read', () => fs.readFileSync(o + '/there'));"
      "report('outside-write', () => fs.writeFileSync(o + '/new', 'x'));"
      "report('outside-truncate', () => fs.truncateSync(o + '/there', 0));"
      "report('outside-remove', () => fs.unlinkSync(o + '/there'));"
      "report('outside-move', () => { fs.writeFileSync(d + '/c', ''); fs.renameSync(d + '/c', o + '/c') });");
  CHECK_EQ(files.status, 0);
  CHECK_EQ(files.output,
           "write ok\nappend ok\ntruncate ok\nfolder ok\nrename ok\nremove ok\nnull ok\nread ok\n"
           "outside-write EACCES\noutside-truncate EACCES\noutside-remove EACCES\noutside-move EACCES\n");
  CHECK_EQ(capture_reader::readFile(other + "/there"), "seen");
  CHECK(!std::filesystem::exists(other + "/new"));

  // No network of any kind.
  const Outcome network = node({"--write", work, "--read-all"},
      "net.connect(9, '127.0.0.1').on('error', (error) => { console.log('tcp', error.code);"
      "  net.connect('/run/sluice-nothing').on('error', (second) => { console.log('unix', second.code);"
      "    const socket = dgram.createSocket('udp4');"
      "    socket.on('error', (third) => { console.log('udp', third.code) });"
      "    socket.bind(0, '127.0.0.1', () => console.log('udp bound')) }) })");
  CHECK_EQ(network.output, "tcp EACCES\nunix EACCES\nudp EACCES\n");

  // Its own privileges, as the kernel tells them.
  const Outcome self = run({kProgram, "--write", work, "--", "cat", "/proc/self/status"});
  CHECK_EQ(self.status, 0);
  CHECK_EQ(status(self.output, "CapEff"), "0000000000000000");
  CHECK_EQ(status(self.output, "CapPrm"), "0000000000000000");
  CHECK_EQ(status(self.output, "CapInh"), "0000000000000000");
  CHECK_EQ(status(self.output, "CapAmb"), "0000000000000000");
  if (geteuid() == 0) CHECK_EQ(status(self.output, "CapBnd"), "0000000000000000");
  CHECK_EQ(status(self.output, "NoNewPrivs"), "1");
  CHECK_EQ(status(self.output, "Seccomp"), "2");

  // A process outside gets no signal from it, nor can it be looked into (its own kind, same user).
  const std::string us = std::to_string(getpid());
  const Outcome others = node({"--write", work},
      "report('signal', () => process.kill(" + us + ", 0)); report('memory', () => fs.openSync('/proc/" + us + "/mem'));");
  CHECK_EQ(others.output, "signal EPERM\nmemory EACCES\n");

  // Reading narrowed.
  const Outcome narrow = node({"--write", work, "--read", work},
      "report('there', () => fs.readFileSync('" + other + "/there')); report('own', () => fs.readdirSync('" + work + "'));");
  CHECK_EQ(narrow.output, "there EACCES\nown ok\n");

  // The status is the command's, and every mistake is told.
  CHECK_EQ(run({kProgram, "--write", work, "--", "sh", "-c", "exit 7"}).status, 7);
  CHECK_EQ(run({kProgram, "--write", work, "--", "sluice-no-such-program"}).status, 127);
  CHECK_EQ(run({kProgram, "--write", work + "/none", "--", "true"}).status, 125);
  CHECK_EQ(run({kProgram, "--write", work}).status, 2);
  CHECK_EQ(run({kProgram, "--", "true"}).status, 2);
  CHECK_EQ(run({kProgram, "--write", work, "--read-all", "--read", "/", "--", "true"}).status, 2);
  CHECK_EQ(run({kProgram, "--odd", "--write", work, "--", "true"}).status, 2);
  return passed();
}
