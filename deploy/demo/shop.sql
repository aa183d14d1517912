CREATE DATABASE shop;
CREATE USER shop@'%' IDENTIFIED BY 'shop';
GRANT ALL ON shop.* TO shop@'%';
CREATE TABLE shop.items (id INT PRIMARY KEY, name VARCHAR(40), category INT, price DECIMAL(8, 2), stock INT);
CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, item INT, amount INT, placed TIMESTAMP DEFAULT NOW());
INSERT INTO shop.items SELECT seq, CONCAT('item ', seq), seq % 8, seq * 1.5, 100000 FROM shop.seq_1_to_200;
