// What differs between the controllers: pins, analog inputs, the serial port's buffer, the I2C bus.
//
// The board of docs/build-a-board.md has an ESP32. The tests build the sketch for an ATmega2560 as
// well, because a simulator of it exists (tests/hardware/avr); its wiring was never tried.
#ifndef SCENT_CONTROLLER_H
#define SCENT_CONTROLLER_H

#include <Arduino.h>
#include <Wire.h>

namespace controller {

#if defined(__AVR_ATmega2560__)

#undef round  // Arduino's macro would replace the function of math.h and overflow above 2^31

const int kMqPins[3] = {A2, A3, A4};
const int kSdaPin = 20;  // those of the I2C unit, which cannot be moved
const int kSclPin = 21;
const uint32_t kReferenceMv = 2560;

inline void startSerial(unsigned long baud) { Serial.begin(baud); }

inline void startAnalog() { analogReference(INTERNAL2V56); }

inline uint32_t readMillivolts(int pin) {
  return (static_cast<uint32_t>(analogRead(pin)) * kReferenceMv + 512) / 1024;
}

inline void startI2c(uint32_t hz, uint16_t timeout_ms) {
  Wire.begin();
  Wire.setClock(hz);
  Wire.setWireTimeout(1000UL * timeout_ms, true);
}

// An open-drain line, which this controller imitates: an output that is low, or an input.
inline void openDrain(int pin) { pinMode(pin, INPUT_PULLUP); }
inline void pullLow(int pin) {
  digitalWrite(pin, LOW);
  pinMode(pin, OUTPUT);
}
inline void letRise(int pin) { pinMode(pin, INPUT_PULLUP); }

#else  // ESP32

const int kMqPins[3] = {34, 39, 36};  // A2, A3, A4: ADC1, which Wi-Fi leaves alone
const int kSdaPin = 23;
const int kSclPin = 22;

inline void startSerial(unsigned long baud) {
  Serial.setTxBufferSize(1024);  // a line need not wait for the port: 150 bytes take 13 ms
  Serial.begin(baud);
}

inline void startAnalog() {
  analogReadResolution(12);
  for (int pin : kMqPins) analogSetPinAttenuation(pin, ADC_11db);
}

inline uint32_t readMillivolts(int pin) { return analogReadMilliVolts(pin); }

inline void startI2c(uint32_t hz, uint16_t timeout_ms) {
  Wire.begin(kSdaPin, kSclPin, hz);
  Wire.setTimeOut(timeout_ms);
}

inline void openDrain(int pin) { pinMode(pin, OUTPUT_OPEN_DRAIN); }
inline void pullLow(int pin) { digitalWrite(pin, LOW); }
inline void letRise(int pin) { digitalWrite(pin, HIGH); }

#endif

}  // namespace controller

#endif  // SCENT_CONTROLLER_H
