// scentd's board: an ESP32 that reads twelve channels and prints one checksummed line a slot.
//
// Wiring and parts: docs/build-a-board.md. Line: docs/serial-protocol.md. Needs the ESP32 Arduino
// core 2.0.5 or newer and the library "Adafruit BME680" 2.0 or newer. The Grove board is read
// without its usual library, which returns 0 for an absent part.

#include <Adafruit_BME680.h>
#include <Wire.h>

#include "scent_controller.h"
#include "scent_line.h"
#include "scent_rig.h"

// Settings that you may change.

const uint32_t kPeriodMs = 100;    // 10 Hz, which all models take; 1000 for 1 Hz
const int kLineVersion = 2;        // 2 adds the MQ volts, 1 does without
const float kSeaLevelHpa = 1017.0f;  // as in the published recordings

// 10 kOhm on the module, with the 250 kOhm of the divider across it.
const float kMqLoadKohm = 9.615f;

// R0 = Rs in clean air / clean-air ratio (MQ-135 3.6, MQ-9 9.6, MQ-3 60). These are those of the
// published recordings; measure your own, see docs/build-a-board.md.
const scent::MqCurve kMqCurves[scent::kMqParts] = {
    {77.255f, -3.18f, kMqLoadKohm, 14.29f},  // MQ-135: Alcohol
    {599.65f, -2.244f, kMqLoadKohm, 2.96f},  // MQ-9: LPG (by its CO curve, as published)
    {4.8387f, -2.68f, kMqLoadKohm, 0.04f},   // MQ-3: Benzene
};

// Fixed by the wiring. The pins are in scent_controller.h.

const float kMqSupplyVolts = 5.0f;
// 150 kOhm over 100 kOhm: 5 V become 2.0 V, in the range where the ESP32's ADC is linear (150 to
// 2450 mV at 11 dB). Below it all inputs read the same, also an open one, which the divider pulls
// to ground.
const float kMqDivider = (150.0f + 100.0f) / 100.0f;
const float kMqAbsentVolts = 0.4f;
const int kMqSamples = 16;  // averaged: that ADC is noisy

const uint32_t kI2cHz = 100000;  // long Grove cables have too much capacitance for 400 kHz
const uint16_t kI2cTimeoutMs = 20;
const int kFailuresBeforeRecovery = 3;
const uint32_t kRecoveryEveryMs = 10000;  // an absent part always fails; do not disturb the others

const uint8_t kGroveAddress = 0x08;
const uint8_t kGroveWarmUp = 0xFE;
const int kGroveParts = 4;
const uint8_t kGroveCommands[kGroveParts] = {0x01, 0x03, 0x05, 0x07};  // GM-102B, 302B, 502B, 702B

const uint8_t kBmeAddresses[2] = {0x77, 0x76};
const uint8_t kBmeGasStatusRegister = 0x2B;  // BME680 datasheet, 5.3.4: gas_r_lsb
const uint8_t kBmeGasValid = 1 << 5;
const uint8_t kBmeHeaterStable = 1 << 4;
const uint32_t kBmePeriodMs = 1000;  // heating more often would warm the part itself
const uint32_t kBmeRetryMs = 5000;
const int kBmeRepeatsBeforeReset = 20;

enum class BmeState { kAbsent, kIdle, kMeasuring };

Adafruit_BME680 bme(&Wire);
BmeState bme_state = BmeState::kAbsent;
uint8_t bme_address = 0;
uint32_t bme_started_ms = 0;
uint32_t bme_next_ms = 0;
float bme_row[5] = {NAN, NAN, NAN, NAN, NAN};  // as in a line, from Temperature to Altitude
scent::RepeatWatch bme_repeats(kBmeRepeatsBeforeReset);

bool grove_warmed_up = false;
int i2c_failures = 0;
uint32_t i2c_recovered_ms = 0;

scent::Schedule *schedule = nullptr;

// I2C

bool noteI2c(bool ok) {
  i2c_failures = ok ? 0 : i2c_failures + 1;
  return ok;
}

// A part that was reset in the middle of a byte holds SDA low; up to nine clocks let it finish.
void recoverI2c() {
  Wire.end();
  pinMode(controller::kSdaPin, INPUT_PULLUP);
  controller::openDrain(controller::kSclPin);
  for (int clock = 0; clock < 9 && digitalRead(controller::kSdaPin) == LOW; ++clock) {
    controller::pullLow(controller::kSclPin);
    delayMicroseconds(5);
    controller::letRise(controller::kSclPin);
    delayMicroseconds(5);
  }
  controller::openDrain(controller::kSdaPin);  // a stop condition: SDA rises while SCL is high
  controller::pullLow(controller::kSdaPin);
  delayMicroseconds(5);
  controller::letRise(controller::kSdaPin);
  controller::startI2c(kI2cHz, kI2cTimeoutMs);
  i2c_failures = 0;
}

void recoverI2cIfStuck() {
  if (i2c_failures < kFailuresBeforeRecovery) return;
  if (millis() - i2c_recovered_ms < kRecoveryEveryMs) return;
  i2c_recovered_ms = millis();
  recoverI2c();
}

bool writeByte(uint8_t address, uint8_t value) {
  Wire.beginTransmission(address);
  Wire.write(value);
  return Wire.endTransmission() == 0;
}

// Grove board

// A count of 0..1023, least significant byte first in four bytes; NAN if the board is silent.
float readGrove(uint8_t command) {
  if (!writeByte(kGroveAddress, command)) return NAN;
  delay(1);  // its controller needs a moment between command and answer
  if (Wire.requestFrom(kGroveAddress, static_cast<uint8_t>(4)) != 4) return NAN;
  uint32_t count = 0;
  for (int byte = 0; byte < 4; ++byte) {
    count |= static_cast<uint32_t>(Wire.read() & 0xFF) << (8 * byte);
  }
  return count <= 1023 ? static_cast<float>(count) : NAN;
}

// After the first time-out the other parts are skipped in this slot, and the board is warmed up
// again, since it may have lost power.
void readGroveParts(float *values) {
  for (int part = 0; part < kGroveParts; ++part) values[part] = NAN;
  if (!grove_warmed_up) {
    grove_warmed_up = noteI2c(writeByte(kGroveAddress, kGroveWarmUp));
    delay(1);
  }
  for (int part = 0; part < kGroveParts && grove_warmed_up; ++part) {
    values[part] = readGrove(kGroveCommands[part]);
    grove_warmed_up = noteI2c(!isnan(values[part]));
  }
}

// MQ parts

float readMqVolts(int pin) {
  uint32_t sum_mv = 0;
  for (int sample = 0; sample < kMqSamples; ++sample) sum_mv += controller::readMillivolts(pin);
  const float volts = kMqDivider * static_cast<float>(sum_mv) / kMqSamples / 1000.0f;
  return volts > kMqAbsentVolts ? volts : NAN;
}

void readMqParts(scent::Reading *reading) {
  for (int part = 0; part < scent::kMqParts; ++part) {
    const float volts = readMqVolts(controller::kMqPins[part]);
    reading->mq_volts[part] = volts;
    reading->values[kGroveParts + part] = scent::mq_ppm(volts, kMqSupplyVolts, kMqCurves[part]);
  }
}

// BME680: measured independently of the schedule, since heating takes longer than a slot at 10 Hz

void dropBme() {
  bme_state = BmeState::kAbsent;
  bme_next_ms = millis() + kBmeRetryMs;
  for (float &value : bme_row) value = NAN;
}

bool findBme() {
  for (uint8_t address : kBmeAddresses) {
    if (bme.begin(address)) {  // its defaults: oversampling 8/4/2, filter 3, 320 degC for 150 ms
      bme_address = address;
      return true;
    }
  }
  return false;
}

// Both bits must be set; the library accepts a gas reading when either is.
bool gasReadingIsGood() {
  if (!writeByte(bme_address, kBmeGasStatusRegister)) return false;
  if (Wire.requestFrom(bme_address, static_cast<uint8_t>(1)) != 1) return false;
  const uint8_t status = static_cast<uint8_t>(Wire.read());
  return (status & kBmeGasValid) && (status & kBmeHeaterStable);
}

void takeBmeReading() {
  if (!noteI2c(bme.endReading())) {
    dropBme();
    return;
  }
  const float pressure_hpa = bme.pressure / 100.0f;
  const float gas_kohm = gasReadingIsGood() ? bme.gas_resistance / 1000.0f : NAN;
  const float row[5] = {bme.temperature, pressure_hpa, bme.humidity, gas_kohm,
                        scent::altitude_m(pressure_hpa, kSeaLevelHpa)};
  memcpy(bme_row, row, sizeof row);
  const float watched[4] = {bme.temperature, pressure_hpa, bme.humidity,
                            static_cast<float>(bme.gas_resistance)};
  if (bme_repeats.hung(watched)) dropBme();  // begin() resets the part
}

void serveBme() {
  if (static_cast<int32_t>(millis() - bme_next_ms) < 0) return;
  switch (bme_state) {
    case BmeState::kAbsent:
      if (findBme()) {
        bme_state = BmeState::kIdle;
      } else {
        bme_next_ms = millis() + kBmeRetryMs;
      }
      break;
    case BmeState::kIdle: {
      bme_started_ms = millis();
      const uint32_t ready_ms = bme.beginReading();
      if (ready_ms == 0) {
        noteI2c(false);
        dropBme();
      } else {
        bme_state = BmeState::kMeasuring;
        bme_next_ms = ready_ms + 1;
      }
      break;
    }
    case BmeState::kMeasuring:
      bme_state = BmeState::kIdle;
      bme_next_ms = bme_started_ms + kBmePeriodMs;
      takeBmeReading();
      break;
  }
}

// The sketch

void setup() {
  controller::startSerial(115200);
  controller::startAnalog();
  controller::startI2c(kI2cHz, kI2cTimeoutMs);
  static scent::Schedule slots(millis() + kPeriodMs, kPeriodMs);
  schedule = &slots;
}

void loop() {
  scent::Reading reading;
  if (!schedule->due(millis(), &reading.seq, &reading.device_ms)) {
    serveBme();
    delay(1);
    return;
  }
  readGroveParts(reading.values);
  readMqParts(&reading);
  memcpy(reading.values + kGroveParts + scent::kMqParts, bme_row, sizeof bme_row);
  char line[scent::kMaxLineBytes];
  const size_t length = scent::encode(reading, kLineVersion, line, sizeof line);
  Serial.write(reinterpret_cast<const uint8_t *>(line), length);
  recoverI2cIfStuck();
}
