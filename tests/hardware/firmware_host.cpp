// Runs the board's headers on the host, driven by test_firmware.py over standard input.
//
// Floats travel as the hexadecimal bits of a uint32, so that nothing is rounded on the way.
#include <inttypes.h>

#include <string>

#include "scent_line.h"
#include "scent_rig.h"

namespace {

bool read_float(float *value) {
  uint32_t bits = 0;
  if (scanf("%" SCNx32, &bits) != 1) return false;
  memcpy(value, &bits, sizeof bits);
  return true;
}

int encode_lines() {
  int version = 0;
  scent::Reading reading;
  while (scanf("%d %" SCNu32 " %" SCNu32, &version, &reading.seq, &reading.device_ms) == 3) {
    for (float &value : reading.values) {
      if (!read_float(&value)) return 1;
    }
    for (float &volts : reading.mq_volts) {
      if (!read_float(&volts)) return 1;
    }
    char line[scent::kMaxLineBytes];
    const size_t length = scent::encode(reading, version, line, sizeof line);
    if (length != 0 && line[length] != '\0') return 2;
    fwrite(line, 1, length, stdout);
    // Every buffer that is too small is refused and nothing is written beyond its end.
    for (size_t size = 0; size <= length; ++size) {
      std::string small(size + 1, '#');
      if (scent::encode(reading, version, &small[0], size) != 0) return 3;
      if (small[size] != '#') return 4;
    }
  }
  return 0;
}

int mq_ppm() {
  scent::MqCurve curve;
  float volts = 0;
  float supply = 0;
  while (read_float(&volts) && read_float(&supply) && read_float(&curve.a) &&
         read_float(&curve.b) && read_float(&curve.load_kohm) && read_float(&curve.r0_kohm)) {
    printf("%.9g\n", static_cast<double>(scent::mq_ppm(volts, supply, curve)));
  }
  return 0;
}

int altitude() {
  float pressure_hpa = 0;
  while (read_float(&pressure_hpa)) {
    printf("%.9g\n", static_cast<double>(scent::altitude_m(pressure_hpa, 1017.0f)));
  }
  return 0;
}

int schedule() {
  uint32_t start_ms = 0;
  uint32_t period_ms = 0;
  if (scanf("%" SCNu32 " %" SCNu32, &start_ms, &period_ms) != 2) return 1;
  scent::Schedule slots(start_ms, period_ms);
  uint32_t now_ms = 0;
  while (scanf("%" SCNu32, &now_ms) == 1) {
    uint32_t seq = 0;
    uint32_t slot_ms = 0;
    if (slots.due(now_ms, &seq, &slot_ms)) {
      printf("%" PRIu32 " %" PRIu32 "\n", seq, slot_ms);
    } else {
      printf("wait\n");
    }
  }
  return 0;
}

int repeats() {
  scent::RepeatWatch watch(3);
  float row[4] = {0, 0, 0, 0};
  while (read_float(&row[0])) printf("%d\n", watch.hung(row) ? 1 : 0);
  return 0;
}

}  // namespace

int main(int argc, char **argv) {
  const std::string what = argc == 2 ? argv[1] : "";
  if (what == "encode") return encode_lines();
  if (what == "mq_ppm") return mq_ppm();
  if (what == "altitude") return altitude();
  if (what == "schedule") return schedule();
  if (what == "repeats") return repeats();
  return 64;
}
