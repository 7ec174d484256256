// The part of the ESP32 Arduino core that scentboard.ino uses, with a virtual clock and simulated
// parts that can be unplugged, so that the host runs the sketch itself.
#ifndef BENCH_ARDUINO_H
#define BENCH_ARDUINO_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define HIGH 0x1
#define LOW 0x0
#define OUTPUT 0x03
#define INPUT_PULLUP 0x05
#define OUTPUT_OPEN_DRAIN 0x13
#define ADC_11db 3

// The simulated parts: which are plugged in, and what they read.
struct Bench {
  uint64_t now_us = 0;
  bool grove = true;
  bool bme = true;
  bool bme_moves = true;     // false: it has hung and repeats one row
  bool sda_held_low = false;  // until nine clocks
  int clocks = 0;
  int bme_resets = 0;
  uint8_t gas_status = 0x30;  // gas_valid and heat_stab
  uint32_t counts[8] = {0, 216, 0, 305, 0, 494, 0, 830};  // by command
  int mq_mv[40] = {0};
};
extern Bench bench;

inline uint32_t millis() { return static_cast<uint32_t>(bench.now_us / 1000); }
inline void delay(uint32_t ms) { bench.now_us += 1000ULL * ms; }
inline void delayMicroseconds(uint32_t us) { bench.now_us += us; }
inline void pinMode(uint8_t, uint8_t) {}
inline int digitalRead(uint8_t) { return bench.sda_held_low ? LOW : HIGH; }
inline void digitalWrite(uint8_t pin, uint8_t level) {
  const bool is_clock = pin == 22;
  if (is_clock && level == HIGH && ++bench.clocks >= 9) bench.sda_held_low = false;
}
inline uint32_t analogReadMilliVolts(uint8_t pin) {
  bench.now_us += 60;
  return static_cast<uint32_t>(bench.mq_mv[pin]);
}
inline void analogReadResolution(uint8_t) {}
inline void analogSetPinAttenuation(uint8_t, int) {}

struct BenchSerial {
  size_t setTxBufferSize(size_t size) { return size; }
  void begin(unsigned long) {}
  size_t write(const uint8_t *data, size_t length) { return fwrite(data, 1, length, stdout); }
};
extern BenchSerial Serial;

#endif  // BENCH_ARDUINO_H
