// Runs scentboard.ino on the bench of tests/hardware/arduino, driven by test_firmware_sketch.py.
//
// Standard input holds lines "<seconds> <what> <value>": what happens on the bench, and when.
// "end" ends the run. The Arduino IDE declares a sketch's functions before its first one; here
// the test passes them in a generated header.
#include "Arduino.h"
#include "sketch_prototypes.h"
// The sketch comes after its prototypes, as in the IDE.
#include "scentboard.ino"

Bench bench;
BenchSerial Serial;
TwoWire Wire;

namespace {

bool happens(const char *what, int value) {
  if (strcmp(what, "grove") == 0) bench.grove = value != 0;
  else if (strcmp(what, "bme") == 0) bench.bme = value != 0;
  else if (strcmp(what, "bme_moves") == 0) bench.bme_moves = value != 0;
  else if (strcmp(what, "gas_status") == 0) bench.gas_status = static_cast<uint8_t>(value);
  else if (strcmp(what, "co") == 0) bench.counts[7] = static_cast<uint32_t>(value);
  else if (strcmp(what, "mq135_mv") == 0) bench.mq_mv[34] = value;
  else if (strcmp(what, "mq9_mv") == 0) bench.mq_mv[39] = value;
  else if (strcmp(what, "mq3_mv") == 0) bench.mq_mv[36] = value;
  else if (strcmp(what, "stall_ms") == 0) delay(static_cast<uint32_t>(value));
  else if (strcmp(what, "hold_sda") == 0) {
    bench.sda_held_low = true;
    bench.clocks = 0;
  } else return false;
  return true;
}

}  // namespace

int main() {
  bool started = false;
  double at_s = 0;
  char what[32];
  int value = 0;
  while (scanf("%lf %31s %d", &at_s, what, &value) == 3) {
    if (at_s > 0 && !started) {
      setup();
      started = true;
    }
    while (started && bench.now_us < static_cast<uint64_t>(at_s * 1e6)) loop();
    if (strcmp(what, "end") == 0) {
      fprintf(stderr, "%d", bench.bme_resets);
      return 0;
    }
    if (!happens(what, value)) return 64;
  }
  return 65;
}
